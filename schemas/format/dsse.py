"""Owns the signed envelope around manifest, trust file and tombstone: strict DSSE (format.md §9).

    {payload, payloadType, signatures: [{keyid, sig}]}    signed: PAE(payloadType, payload)

1. One signature. keyid is the fingerprint of the signer's public key.
2. An envelope has one text: JCS outside, JCS inside, padded base64 between. Anything else is refused,
   so that no bit of the file can change unseen.
3. `parse` reads; whether the signature holds is for handlers.crypto.signatures to say.
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

MAX_BYTES = {MANIFEST: 512 << 20, TRUST: 16 << 20, TOMBSTONE: 1 << 20}
"""Greatest envelope by type."""


@dataclass(frozen=True, slots=True)
class Envelope:
    raw: bytes
    payload_type: str
    payload: bytes
    keyid: bytes
    sig: bytes

    @property
    def value(self) -> Any:
        """What the payload says. Raises EvidenceFalse (dsse.payload)."""
        try:
            return strict_loads(self.payload)
        except Rejected as error:
            _refuse("payload", error.message)

    @property
    def signed(self) -> bytes:
        """What `sig` signs."""
        return pae(self.payload_type, self.payload)

    @property
    def digest(self) -> bytes:
        """H(envelope), by which the next manifest and the event log name this one."""
        return h(self.raw)


def fingerprint(public_key: bytes) -> bytes:
    """The 32 bytes that name a key. public_key: 32 bytes, raw Ed25519."""
    return h(public_key)


def pae(payload_type: str, payload: bytes) -> bytes:
    """DSSE's pre-authentication encoding."""
    name = payload_type.encode()
    return b"DSSEv1 %d %s %d %s" % (len(name), name, len(payload), payload)


def build(payload: bytes, payload_type: str, sign: Callable[[bytes], bytes], public_key: bytes) -> bytes:
    """The envelope. payload: canonical JSON; sign: the 64 bytes of Ed25519 over what it is given."""
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
    """The envelope in `raw`, its form checked, its signature not.

    The payload is not looked into. Raises EvidenceFalse: dsse.size, dsse.form (not the one text), dsse.type.
    """
    if len(raw) > MAX_BYTES[payload_type]:
        _refuse("size", f"{len(raw)} bytes, allowed {MAX_BYTES[payload_type]}")
    match = _OUTER.fullmatch(raw)
    if match is None:
        _refuse("form", "it is not the one text of payload, payloadType and one signature of keyid and sig")
    if match["type"] != payload_type.encode():
        _refuse("type", f"it is {match['type'][:100]!r}, wanted {payload_type!r}")
    view = memoryview(raw)
    payload, sig = (_decode(view[slice(*match.span(name))]) for name in ("payload", "sig"))
    return Envelope(raw, payload_type, payload, bytes.fromhex(match["keyid"].decode()), sig)


_OUTER = re.compile(
    rb'\{"payload":"(?P<payload>[A-Za-z0-9+/]*={0,2})","payloadType":"(?P<type>[ -!#-\[\]-~]{1,200})",'
    rb'"signatures":\[\{"keyid":"(?P<keyid>[0-9a-f]{64})","sig":"(?P<sig>[A-Za-z0-9+/]{86}==)"\}\]\}'
)
"""JCS of an envelope. It is matched, not parsed: no second copy of a large payload is made."""


def _encode(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def _decode(text: memoryview) -> bytes:
    """Padded base64 in its one form: the last digit before the padding has no bits to spare."""
    try:
        raw = binascii.a2b_base64(text, strict_mode=True)
    except binascii.Error:
        _refuse("form", "a field is not base64")
    tail = raw[-(len(raw) % 3 or 3) :]
    if binascii.b2a_base64(tail, newline=False) != text[-4:]:
        _refuse("form", "base64 is not in its one form")
    return raw


def _refuse(why: str, message: str) -> NoReturn:
    raise EvidenceFalse(f"envelope refused: {message}", code=f"dsse.{why}") from None


__all__ = [
    "MANIFEST",
    "MAX_BYTES",
    "TOMBSTONE",
    "TRUST",
    "Envelope",
    "build",
    "fingerprint",
    "jcs",
    "pae",
    "parse",
    "strict_loads",
]
