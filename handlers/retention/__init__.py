"""Rules for space and retention: which source may be purged, and how much a host may send.

Imports schemas and handlers.lifecycle. space.py has them all.
"""
