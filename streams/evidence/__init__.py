"""Evidence of sessions: sealing it, loading it, comparing it with its source, and single chunks as a service.

May import host, pipeline and the rooms below them. Begin with evidence_store.py (the three stores), then
sealing.py (how evidence comes to be), sealed_session.py and trust.py (how it is loaded), replay.py, and
chunk_services.py (single chunks: processor, store, trees).
"""
