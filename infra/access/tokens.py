"""Verifies the tokens of people and hosts, and remembers those that it has verified.

1. The algorithm decides which keys may count: HS256 the secret of this installation, all others the keys of
   the auth service, hosts their evidence key. No key of one kind ever verifies a token of another kind.
2. `exp` and `sub` are required; `nbf`, `iat`, and with a setting `iss` and `aud`, are checked.
3. Only the five roles count. An unknown role gives nothing.
4. The verified token of a person is remembered by its digest until it expires, or the keys of the auth
   service change. That of a host is for one request.
"""

import time
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import jwt

from infra.access.host_tokens import claimed_host, verified_host
from infra.access.jwks import ALGORITHMS, KeySet
from infra.access.refusals import bad_claim, bad_token, checked_size, translated
from infra.access.secret import TokenSecret
from infra.access.wanted_claims import Wanted
from schemas.access import GIVEN_ROLES, SUBJECT_MOST, Caller, Role
from schemas.errors import Misuse
from schemas.format.digest import h

SECRET_ALGORITHM = "HS256"
REMEMBERED_MOST = 4096
ROLES_READ_MOST = 100


@dataclass(frozen=True, slots=True)
class _Verified:
    caller: Caller
    until_s: float
    version: int
    """Of the key set that verified it; -1: none did."""


class JwtTokens:
    """The port Tokens."""

    def __init__(self, secret: TokenSecret, keys: KeySet | None, wanted: Wanted) -> None:
        """Raises Misuse (config.jwt_secret): nothing could verify a token."""
        if keys is None and not secret.exists:
            raise Misuse(
                "JWT_SECRET_KEY and JWT_JWKS_URL are unset; production wants one of them",
                code="config.jwt_secret",
                hint="name the keys of the auth service, or make a secret: openssl rand -base64 48",
            )
        self._secret, self._keys, self._wanted = secret, keys, wanted
        self._remembered: OrderedDict[bytes, _Verified] = OrderedDict()

    async def caller(self, token: str, address: str = "") -> Caller:
        checked_size(token)
        digest = h(token.encode())
        if self._keys is not None:
            self._keys.touch()
        found = self._recall(digest)
        if found is None:
            found = await self._verified(token)
            self._remember(digest, found)
        return replace(found.caller, address=address) if address else found.caller

    async def check(self) -> None:
        if self._keys is not None:
            await self._keys.check()

    def host_of(self, token: str) -> str:
        return claimed_host(token)

    def host(self, token: str, key: bytes, request: bytes, address: str = "") -> Caller:
        caller = verified_host(token, claimed_host(token), key, request)
        return replace(caller, address=address) if address else caller

    async def close(self) -> None:
        if self._keys is not None:
            await self._keys.close()

    def _recall(self, digest: bytes) -> _Verified | None:
        found = self._remembered.get(digest)
        if found is None:
            return None
        stale = self._keys is not None and found.version not in (-1, self._keys.version)
        if stale or found.until_s <= time.time():
            del self._remembered[digest]
            return None
        self._remembered.move_to_end(digest)
        return found

    def _remember(self, digest: bytes, found: _Verified) -> None:
        self._remembered[digest] = found
        if len(self._remembered) > REMEMBERED_MOST:
            self._remembered.popitem(last=False)

    async def _verified(self, token: str) -> _Verified:
        with translated():
            header = jwt.get_unverified_header(token)
        algorithm, kid = header.get("alg"), header.get("kid", "")
        version, key = -1, None
        if algorithm == SECRET_ALGORITHM and self._secret.exists:
            key = self._secret.value
        elif algorithm in ALGORITHMS and self._keys is not None:
            found = await self._keys.key(kid if isinstance(kid, str) else "", str(algorithm))
            if found is None:
                raise bad_token("no key that counts signed it")
            key, version = found.key, self._keys.version
        if key is None:
            raise bad_token("its algorithm is not allowed")
        wanted = self._wanted
        with translated():
            claims = jwt.decode(
                token,
                key,
                algorithms=[str(algorithm)],
                audience=wanted.audience or None,
                issuer=wanted.issuer or None,
                leeway=wanted.leeway_s,
                options={"require": ["exp", "sub"], "verify_aud": bool(wanted.audience)},
            )
            until_s = float(claims["exp"])
        counts_until_s = until_s + wanted.leeway_s
        return _Verified(Caller(_subject(claims), _roles(claims), until_s=counts_until_s), until_s, version)


def _subject(claims: dict[str, Any]) -> str:
    """Raises Unauthenticated (access.claims)."""
    subject = claims["sub"]
    if not isinstance(subject, str) or not 0 < len(subject) <= SUBJECT_MOST or not subject.isprintable():
        raise bad_claim(f"its subject (`sub`) is no text of 1 to {SUBJECT_MOST} printable characters")
    return subject


def _roles(claims: dict[str, Any]) -> frozenset[Role]:
    """The roles of the claims `roles` (list or text) and `role`."""
    named: list[object] = []
    for claim in ("roles", "role"):
        given = claims.get(claim)
        named += given[:ROLES_READ_MOST] if isinstance(given, list) else [given]
    return frozenset(role for role in GIVEN_ROLES if role in _texts(named))


def _texts(values: Iterable[object]) -> set[str]:
    return {value for value in values if isinstance(value, str)}
