"""The room of verification: every check of a session's evidence, and of a tombstone.

Pure: it reads evidence through schemas.ports.evidence. It may import handlers.crypto, handlers.format,
handlers.stages.record and schemas; never handlers.seal: maker and checker stay apart.
Begin with session.py (the order of all checks), then `report` (all codes).
"""
