"""Speed by hand: pair.py compares two checkouts, sizing.py measures the figures of docs/sizing.md."""
