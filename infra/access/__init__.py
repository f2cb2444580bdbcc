"""Tokens (JWT): verifies those of people and hosts, makes those of this installation. Only here is PyJWT.

May import schemas and infra/disk. Begin with tokens.py, then jwks.py (keys of an auth service),
host_tokens.py (the recording hosts), issuer.py and credential.py (the caller's side).
"""
