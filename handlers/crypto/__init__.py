"""Keys, ciphers and signatures: derivation, key files, copies of `keys/`, the trust file.

Imports schemas only. Start with primitives.py (the library calls) and keys.py (the keys of a session).
"""
