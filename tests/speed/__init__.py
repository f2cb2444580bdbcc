"""Speed by hand: pair.py compares checkouts, slow_disk.py slows syncs, sizing.py fills docs/sizing.md,
transitions.py counts lifecycle transitions.

run.py runs the bench for both pair.py and sizing.py.
"""
