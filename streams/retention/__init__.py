"""The end of data: sources are purged once their evidence is read back, sessions are destroyed for good.

May import evidence and the rooms below it. Begin with sealed_source.py (sealed sessions, and the loop), then
live_source.py (running sessions, while the recording stream fills up), expired_sessions.py (retention
periods) and shredding.py (destruction).
"""
