"""Rules for space and retention: which source may be purged, and how much a host may send.

Imports schemas and handlers.lifecycle. Begin with space.py, the only module.
"""
