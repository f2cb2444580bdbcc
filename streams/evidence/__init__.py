"""Evidence of finished sessions: sealing it, loading it, comparing it with its source.

May import host, pipeline and the rooms below them. Read evidence_store.py first (the three stores), then
sealing.py (how evidence comes to be), sealed_session.py and trust.py (how it is loaded), replay.py.
"""
