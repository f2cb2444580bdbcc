"""Reads and writes the formats of evidence: fragments, chunks, codecs, the Merkle tree, MP4 cut places.

Imports schemas and handlers.crypto. Begin with chunk.py; the codecs are in compression.py.
"""
