"""Keys, ciphers and signatures: derivation, key files, copies of `keys/`, the trust file.

Imports schemas only. Begin with keys.py (the keys of a session); primitives.py has the library calls.
"""
