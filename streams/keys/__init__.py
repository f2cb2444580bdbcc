"""The keys of an installation: session keys in use, the `keys/` folder and its log, copies, moves, mirrors.

May import scheduling and event_store. Begin with keystore.py (session keys, one file each), then folder.py
(`keys/` and the log belong together), copies.py, move.py and mirror.py (more than one folder).
"""
