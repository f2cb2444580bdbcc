"""Speed by hand: pair.py compares checkouts, slow_disk.py slows syncs, sizing.py fills docs/sizing.md."""
