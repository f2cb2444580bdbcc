"""The room of reading sealed evidence: the original bytes, and the judgement of a replay.

Pure. It may import handlers.crypto, handlers.format, handlers.verify and schemas.
Begin with original.py.
"""
