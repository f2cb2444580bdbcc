"""The stage `record`: checks fragments and folds them into chunks, which it closes by content alone.

Imports schemas and handlers.crypto. Begin with admit.py, then fold.py. The rule when a
chunk closes is in open_chunk.py.
"""
