"""The identities of our own NATS server: its operator, its accounts, and the users in them.

It may import infra.disk and schemas. Begin with nkey.py (the text form of keys), then claims.py (signed
claims), then accounts.py (the accounts and their rights).
"""
