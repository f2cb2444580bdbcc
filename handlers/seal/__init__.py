"""The room of sealing: makes the manifest and the index chunks of a finished session.

Pure. It may import handlers.crypto, handlers.format, handlers.lifecycle and schemas; never handlers.verify.
Begin with material.py (the input), then `manifest`, then `index`.
"""
