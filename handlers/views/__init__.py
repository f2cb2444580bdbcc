"""Makes the documents of the read models from sessions, and the cursors of their pages. Pure.

May import handlers/crypto, handlers/lifecycle and schemas. Begin with document.py.
"""
