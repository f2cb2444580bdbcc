"""Evidence of finished sessions: sealing it, loading it, comparing it with its source.

May import host, pipeline and the rooms below them. Begin with evidence_store.py (the three stores), then
sealing.py (how evidence comes to be), sealed_session.py and trust.py (how it is loaded), replay.py.
"""
