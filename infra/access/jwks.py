"""Keeps the public keys of the auth service (JWKS), from a URL or a file.

1. The set is read when it is first needed, again after FRESH_S, and at once for a key that it does not hold.
   It is never read twice within LEAST_S. Unknown keys of strangers cost the auth service nothing.
2. If the auth service is down, the last set that was read goes on to count. Without one: Unavailable.
3. Only public keys that verify signatures are taken: no symmetric key, no private one, no weak RSA key.
4. The body is bounded, redirects are not followed.
"""

import asyncio
import json
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import httpx
import jwt
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from infra.services.trace_header import HOOKS
from schemas.config.logs import logger
from schemas.errors import Unavailable

FRESH_S, LEAST_S = 300.0, 10.0
CONNECT_S, READ_S = 5.0, 10.0
BODY_MOST_BYTES, KEYS_MOST = 256 << 10, 100
RSA_LEAST_BITS = 2048
KINDS = {"RSA": ("RS256", "PS256"), "EC": ("ES256",), "OKP": ("EdDSA",)}
"""The algorithms that may be used with each type of key."""
ALGORITHMS = tuple(name for names in KINDS.values() for name in names)

log = logger("lucid.access")


class KeySet:
    """The keys of one auth service. `version` changes with every set that differs from the one before."""

    def __init__(self, url: str, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._url, self._clock_s = url, clock_s
        self.version = 0
        self._body = b""
        self._keys: dict[tuple[str, str], jwt.PyJWK] = {}
        """By key id and algorithm."""
        self._read_s = self._tried_s = float("-inf")
        self._reading: asyncio.Task[None] | None = None
        self._client: httpx.AsyncClient | None = None

    async def key(self, kid: str, algorithm: str) -> jwt.PyJWK | None:
        """Return the key; None: there is none of this id and algorithm. Raises Unavailable (access.keys)."""
        found = self._find(kid, algorithm)
        if found is None and self._clock_s() - self._tried_s >= LEAST_S:
            await asyncio.shield(self._read())
            found = self._find(kid, algorithm)
        elif found is None and self._reading is not None:
            await asyncio.shield(self._reading)
            found = self._find(kid, algorithm)
        if not self._keys:
            raise Unavailable(
                "the auth service has not told its keys yet",
                code="access.keys",
                hint=f"it is asked again in {LEAST_S:g} s; JWT_JWKS_URL names it",
            )
        return found

    async def check(self) -> None:
        """Return if keys are known: the last set serves while the auth service is away.

        Raises Unavailable (access.keys).
        """
        self.touch()
        if not self._keys:
            await self.key("", "")

    def touch(self) -> None:
        """Read the set again in the background if it is old."""
        now_s = self._clock_s()
        if self._keys and now_s - self._read_s >= FRESH_S and now_s - self._tried_s >= LEAST_S:
            self._read()

    async def close(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
            with suppress(asyncio.CancelledError):
                await self._reading
        if self._client is not None:
            await self._client.aclose()

    def _find(self, kid: str, algorithm: str) -> jwt.PyJWK | None:
        """A token without a key id fits the only key of its algorithm."""
        if kid:
            return self._keys.get((kid, algorithm))
        fitting = [key for (_, name), key in self._keys.items() if name == algorithm]
        return fitting[0] if len(fitting) == 1 else None

    def _read(self) -> "asyncio.Task[None]":
        """Begin to read the set, unless it is being read."""
        if self._reading is None:
            self._tried_s = self._clock_s()
            self._reading = asyncio.create_task(self._read_once(), name="jwks")
        return self._reading

    async def _read_once(self) -> None:
        """Take the set; after a failure the last one stays."""
        try:
            body = await self._fetched()
            keys = usable_keys(body)
            if not keys:
                raise ValueError("it holds no key that can be used")
        except (
            httpx.HTTPError,
            httpx.InvalidURL,
            OSError,
            ValueError,
            RecursionError,
            TimeoutError,
        ) as error:
            log.warning("jwks_unread", url=self._url, reason=type(error).__name__, known=len(self._keys))
        else:
            self._read_s = self._clock_s()
            if body != self._body:
                self._body, self._keys = body, keys
                self.version += 1
                log.info("jwks_read", url=self._url, keys=len(keys))
        finally:
            self._reading = None

    async def _fetched(self) -> bytes:
        url = urlsplit(self._url)
        if url.scheme == "file":
            return await asyncio.to_thread(_read_file, Path(unquote(url.path)))
        if self._client is None:
            times = httpx.Timeout(CONNECT_S)
            accepted = {"Accept": "application/json"}
            self._client = httpx.AsyncClient(timeout=times, headers=accepted, event_hooks=HOOKS)
        body = bytearray()
        async with asyncio.timeout(READ_S), self._client.stream("GET", self._url) as answer:
            if answer.status_code != httpx.codes.OK:
                raise ValueError(f"it answers {answer.status_code}")
            async for piece in answer.aiter_bytes():
                body += piece
                if len(body) > BODY_MOST_BYTES:
                    raise ValueError(f"it has more than {BODY_MOST_BYTES} bytes")
        return bytes(body)


def usable_keys(body: bytes) -> dict[tuple[str, str], jwt.PyJWK]:
    """Return the keys of a set that may verify tokens, by id and algorithm. Raises ValueError: no set."""
    document = json.loads(body)
    listed = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(listed, list):
        raise ValueError("it is no JWKS")
    found: dict[tuple[str, str], jwt.PyJWK] = {}
    for entry in listed[:KEYS_MOST]:
        if not _verifies(entry):
            continue
        kid, given = entry.get("kid", ""), entry.get("alg")
        for algorithm in KINDS[entry["kty"]]:
            if given in (None, algorithm):
                # PyJWK reads kty and crv again: an Ed448 key or another curve is refused here
                with suppress(jwt.PyJWTError, ValueError, TypeError, KeyError):
                    key = jwt.PyJWK(entry, algorithm)
                    if _strong(key.key, algorithm):
                        found.setdefault((kid, algorithm), key)
    return found


def _verifies(entry: Any) -> bool:
    """Whether an entry claims to be a public key for signatures."""
    if not isinstance(entry, dict) or str(entry.get("kty")) not in KINDS or "d" in entry:
        return False
    operations = entry.get("key_ops", ["verify"])
    usable = entry.get("use", "sig") == "sig" and isinstance(operations, list) and "verify" in operations
    return usable and isinstance(entry.get("kid", ""), str)


def _strong(key: Any, algorithm: str) -> bool:
    if isinstance(key, RSAPublicKey):
        return key.key_size >= RSA_LEAST_BITS
    if algorithm == "ES256":
        return bool(key.curve.name == "secp256r1")
    return len(key.public_bytes_raw()) == 32  # Ed25519, and not Ed448


def _read_file(path: Path) -> bytes:
    with path.open("rb") as file:
        body = file.read(BODY_MOST_BYTES + 1)
    if len(body) > BODY_MOST_BYTES:
        raise ValueError(f"it has more than {BODY_MOST_BYTES} bytes")
    return body
