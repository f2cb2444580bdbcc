"""Makes and verifies the tokens of recording hosts: signed with the host's evidence key (EdDSA).

    header   {alg: EdDSA, typ: lucid-host+jwt, kid: fingerprint of the key}
    claims   {sub: host:<name>, aud: lucid.cmd, iat, exp, req}

1. A token is for one request: `req` is its digest (schemas/access.py, request_digest), hex. An overheard one
   can only repeat that request while it lives (LIFE_S); by its cause the request counts once.
2. Its type keeps the kinds apart: no key of an auth service makes a host, no host's key makes a person.
3. The clock of a host may be wrong by LEEWAY_S.
"""

import json
import time
from collections.abc import Mapping
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from infra.access.refusals import bad_claim, bad_token, checked_size, translated
from schemas.access import Caller, Role, request_digest
from schemas.errors import Unauthenticated
from schemas.format.dsse import fingerprint
from schemas.ports.access import NO_MEMBERS
from schemas.subjects import HOST_ID

TYPE, ALGORITHM, AUDIENCE, PREFIX = "lucid-host+jwt", "EdDSA", "lucid.cmd", "host:"
LIFE_S = 60
LIFE_MOST_S = 300
"""A host that claims a longer life is refused."""
LEEWAY_S = 300


class HostToken:
    """The credential of one host: each call returns a new token, for one request."""

    def __init__(self, host: str, key: Ed25519PrivateKey) -> None:
        self._host, self._key = host, key
        self._kid = fingerprint(key.public_key().public_bytes_raw()).hex()

    def __call__(self, name: str = "", body: Mapping[str, Any] = NO_MEMBERS, /) -> str:
        now_s = int(time.time())
        sent = json.loads(json.dumps(dict(body)))
        claims = {
            "sub": PREFIX + self._host,
            "aud": AUDIENCE,
            "iat": now_s,
            "exp": now_s + LIFE_S,
            "req": request_digest(name, sent).hex(),
        }
        header = {"typ": TYPE, "kid": self._kid}
        return jwt.encode(claims, self._key, algorithm=ALGORITHM, headers=header)


def claimed_host(token: str) -> str:
    """Return the host that a token names, unverified; empty: it is not of a host, or malformed."""
    try:
        checked_size(token)
        if jwt.get_unverified_header(token).get("typ") != TYPE:
            return ""
        subject = jwt.decode(token, options={"verify_signature": False}).get("sub")
    except (Unauthenticated, jwt.PyJWTError, ValueError, TypeError, OverflowError, RecursionError):
        return ""
    host = subject.removeprefix(PREFIX) if isinstance(subject, str) and subject.startswith(PREFIX) else ""
    return host if HOST_ID.fullmatch(host) else ""


def verified_host(token: str, host: str, key: bytes, request: bytes) -> Caller:
    """Return the host, if the token is for the request of this digest.

    Raises Unauthenticated (access.token, access.expired, access.early, access.claims, access.host_key,
    access.request).
    """
    checked_size(token)
    whose = f"the token of host {host}"
    with translated(whose):
        header = jwt.get_unverified_header(token)
        if header.get("typ") != TYPE:
            raise bad_token("it is not of a host")
        if header.get("kid") != fingerprint(key).hex():
            raise Unauthenticated(
                f"host {host} is registered with another evidence key than the one of this token",
                code="access.host_key",
                hint="use the host's own folder, or another host name",
            )
        claims = jwt.decode(
            token,
            Ed25519PublicKey.from_public_bytes(key),
            algorithms=[ALGORITHM],
            audience=AUDIENCE,
            leeway=LEEWAY_S,
            options={"require": ["exp", "iat", "sub", "aud", "req"]},
        )
        if claims["sub"] != PREFIX + host:
            raise bad_claim("it names another host")
        if claims["exp"] - claims["iat"] > LIFE_MOST_S:
            raise bad_claim(f"the token of a host lives at most {LIFE_MOST_S} s")
        if claims["req"] != request.hex():
            raise Unauthenticated(
                f"{whose} is for another request than this one",
                code="access.request",
                hint="a host makes a new token for each request",
            )
        return Caller(claims["sub"], frozenset({Role.HOST}), host=host)
