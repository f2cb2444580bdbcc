"""Opens and builds the trust file: the keys that count as signers and hosts, with their periods.

1. An offline root key signs it; people compare the root's fingerprint by other means. A key file beside
   evidence is never trusted.
2. A malformed or expired file, or one of another root, is Misuse: no verdict is possible without it.
3. A key that any line revokes for a role counts for nothing in that role, despite other lines.
4. A lower serial never replaces a higher one: the writer of the file calls `replaces` first.

Source: format.md §10.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal, NoReturn

from handlers.crypto.signatures import verify_signature
from schemas.errors import Misuse, Rejected
from schemas.format import dsse
from schemas.format.trust import TrustFile, TrustKey

SIGNER: Literal["signer"] = "signer"
HOST: Literal["host"] = "host"
YEAR_US = 365 * 24 * 3600 * 1_000_000
LIFE_US = 2 * YEAR_US
"""Life of a trust file that we write."""


@dataclass(frozen=True, slots=True)
class Trust:
    """An opened trust file."""

    root: bytes
    """Fingerprint of the root key, 32 bytes; empty: the installation's own keys, which no root signed."""
    serial: int
    keys: tuple[TrustKey, ...]

    def lists(self, key: bytes, role: str, at_us: int, name: str | None = None) -> bool:
        """Whether the key counts in this role at this time: from from_us to before until_us.

        name: only lines of this name count.
        """
        if self.revokes(key, role):
            return False
        return any(
            line.from_us <= at_us < line.until_us and name in (None, line.name)
            for line in self._lines(key, role)
        )

    def revokes(self, key: bytes, role: str) -> bool:
        """Whether none of the key's signatures in this role count."""
        return any(line.revoked_us for line in self._lines(key, role))

    def name(self, key: bytes, role: str) -> str:
        """Return the key's name in the file; empty: it is not listed."""
        return next((line.name for line in self._lines(key, role)), "")

    def _lines(self, key: bytes, role: str) -> list[TrustKey]:
        return [line for line in self.keys if (line.key, line.role) == (key, role)]


def open_trust(raw: bytes, *, now_us: int, root: bytes | None = None) -> Trust:
    """Return the checked trust file. root: the fingerprint that it must have, if the caller knows it.

    Raises Misuse: trust.malformed, trust.root, trust.signature, trust.expired.
    """
    try:
        envelope = dsse.parse(raw, dsse.TRUST)
        value = TrustFile.within(envelope)
    except Rejected as error:
        _refuse("malformed", f"not a trust file: {error.message}")
    fingerprint = dsse.fingerprint(value.root)
    if envelope.keyid != fingerprint or (root is not None and root != fingerprint):
        wanted = fingerprint if root is None else root
        found = envelope.keyid if root is None else fingerprint
        _refuse("root", f"its root is {found.hex()[:16]}, wanted {wanted.hex()[:16]}")
    if not verify_signature(value.root, envelope.signed, envelope.sig):
        _refuse("signature", "its root did not sign it")
    if now_us >= value.expires_us:
        _refuse("expired", "it has expired", hint="fetch the newer one, or: lucid export --trust-file FILE")
    return Trust(fingerprint, value.serial, value.keys)


def build_trust(
    keys: Iterable[TrustKey],
    *,
    serial: int,
    issued_us: int,
    root: bytes,
    sign: Callable[[bytes], bytes],
    life_us: int = LIFE_US,
) -> bytes:
    """Return the trust file's bytes. root: public key, 32 bytes; sign: returns its Ed25519 signature."""
    value = TrustFile(
        serial=serial,
        root=root,
        issued_us=issued_us,
        expires_us=issued_us + life_us,
        keys=tuple(keys),
    )
    return dsse.build(value.build(), dsse.TRUST, sign, root)


def replaces(old: bytes, new: bytes) -> bool:
    """Whether `new` may overwrite `old`: both are trust files of one root, and no serial falls."""
    try:
        known = TrustFile.within(dsse.parse(old, dsse.TRUST))
        coming = TrustFile.within(dsse.parse(new, dsse.TRUST))
    except Rejected:
        return False
    return known.root == coming.root and known.serial <= coming.serial


def _refuse(why: str, message: str, hint: str = "") -> NoReturn:
    raise Misuse(f"trust file refused: {message}", code=f"trust.{why}", hint=hint) from None
