"""The audit chain, pure: links entries, checks a chain, and translates entries for other systems.

It may import schemas and handlers.crypto. Begin with chain.py.
"""
