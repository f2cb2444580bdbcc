"""The signed envelope around manifest, trust file, tombstone and audit head: strict DSSE (format.md §9).

    {payload, payloadType, signatures: [{keyid, sig}]}    signed: PAE(payloadType, payload)

1. One signature. keyid is the fingerprint of the signer's public key.
2. An envelope has exactly one text: JCS outside, JCS inside, padded base64 between. Any other text is
   refused, so a changed bit never passes.
3. `parse` checks the form only; handlers.crypto.signatures checks the signature.
"""

import base64
import binascii
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

from schemas.errors import EvidenceFalse, Rejected
from schemas.format.digest import h
from schemas.format.jcs import jcs, strict_loads

MANIFEST = "application/vnd.lucid.manifest.v1+json"
TRUST = "application/vnd.lucid.trust.v1+json"
TOMBSTONE = "application/vnd.lucid.tombstone.v1+json"
AUDIT_HEAD = "application/vnd.lucid.audit-head.v1+json"

MAX_BYTES = {MANIFEST: 512 << 20, TRUST: 16 << 20, TOMBSTONE: 1 << 20, AUDIT_HEAD: 1 << 14}
"""Greatest envelope by type, bytes."""


@dataclass(frozen=True, slots=True)
class Envelope:
    raw: bytes
    payload_type: str
    payload: bytes
    keyid: bytes
    sig: bytes

    @property
    def value(self) -> Any:
        """The parsed payload. Raises EvidenceFalse (dsse.payload)."""
        try:
            return strict_loads(self.payload)
        except Rejected as error:
            _refuse("payload", error.message)

    @property
    def signed(self) -> bytes:
        """The bytes that `sig` signs."""
        return pae(self.payload_type, self.payload)

    @property
    def digest(self) -> bytes:
        """H(envelope). The next manifest and the event log refer to this envelope by it."""
        return h(self.raw)


def fingerprint(public_key: bytes) -> bytes:
    """Return the 32 bytes that identify a key. public_key: 32 bytes, raw Ed25519."""
    return h(public_key)


def pae(payload_type: str, payload: bytes) -> bytes:
    """Return the pre-authentication encoding of DSSE."""
    name = payload_type.encode()
    return b"DSSEv1 %d %s %d %s" % (len(name), name, len(payload), payload)


def build(payload: bytes, payload_type: str, sign: Callable[[bytes], bytes], public_key: bytes) -> bytes:
    """Return the envelope. payload: canonical JSON; sign: returns the 64-byte Ed25519 signature."""
    return jcs(
        {
            "payload": _encode(payload),
            "payloadType": payload_type,
            "signatures": [
                {"keyid": fingerprint(public_key).hex(), "sig": _encode(sign(pae(payload_type, payload)))}
            ],
        }
    )


def parse(raw: bytes, payload_type: str) -> Envelope:
    """Return the envelope in `raw`. Its form is checked; signature and payload are not.

    Raises EvidenceFalse: dsse.size, dsse.form (not canonical), dsse.type.
    """
    if len(raw) > MAX_BYTES[payload_type]:
        _refuse("size", f"{len(raw)} bytes, allowed {MAX_BYTES[payload_type]}")
    match = _OUTER.fullmatch(raw)
    if match is None:
        _refuse("form", "it is not the canonical text of payload, payloadType and one signature")
    if match["type"] != payload_type.encode():
        _refuse("type", f"its type is {match['type'][:100]!r}, wanted {payload_type!r}")
    view = memoryview(raw)
    payload, sig = (_decode(view[slice(*match.span(name))]) for name in ("payload", "sig"))
    return Envelope(raw, payload_type, payload, bytes.fromhex(match["keyid"].decode()), sig)


_OUTER = re.compile(
    rb'\{"payload":"(?P<payload>[A-Za-z0-9+/]*={0,2})","payloadType":"(?P<type>[ -!#-\[\]-~]{1,200})",'
    rb'"signatures":\[\{"keyid":"(?P<keyid>[0-9a-f]{64})","sig":"(?P<sig>[A-Za-z0-9+/]{86}==)"\}\]\}'
)
"""JCS of an envelope. A match makes no second copy of a large payload, as a parser would."""


def _encode(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def _decode(text: memoryview) -> bytes:
    """Decode canonical padded base64: the last digit before the padding has no unused bits set."""
    try:
        raw = binascii.a2b_base64(text, strict_mode=True)
    except binascii.Error:
        _refuse("form", "a field is not base64")
    tail = raw[-(len(raw) % 3 or 3) :]
    if binascii.b2a_base64(tail, newline=False) != text[-4:]:
        _refuse("form", "base64 is not canonical")
    return raw


def _refuse(why: str, message: str) -> NoReturn:
    raise EvidenceFalse(f"envelope refused: {message}", code=f"dsse.{why}") from None
