"""Tells whether one message of a recording is a fragment that its signer made, as far as no fold is needed.

1. Pure, and without the interpreter's lock where bytes are many: called in threads, a batch at a time.
2. Who may sign: the session's host; of an `end` fragment, the installation (the manifest's signers).
3. A final that its host has signed is known as one even where it breaks a rule of its bytes: its host sends
   no more.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass

from handlers.crypto.signatures import verify_signature
from schemas.buffers import Bytes
from schemas.errors import Rejected
from schemas.format.digest import h
from schemas.format.fragment import (
    END_SIGNED,
    HEADER_BYTES,
    MAGIC,
    SIGNATURE_BYTES,
    SIGNED,
    VERSION,
    EndBody,
    FinalBody,
    Fragment,
    GapBody,
    Kind,
    PartBody,
    ReasonBody,
    head,
    parse,
)

FIRST_BYTES = MAGIC + bytes([VERSION])
KIND_AT, UID_AT, UID_BYTES = len(FIRST_BYTES), 16, 16

_BODIES: dict[Kind, type[PartBody | GapBody | ReasonBody | FinalBody | EndBody]] = {
    Kind.PART: PartBody,
    Kind.GAP: GapBody,
    Kind.PAUSE: ReasonBody,
    Kind.RESUME: ReasonBody,
    Kind.FINAL: FinalBody,
    Kind.END: EndBody,
}


Signers = Callable[[], Collection[bytes]]
"""Raw public keys (32 bytes each) that may sign an `end`; asked only for one."""


@dataclass(frozen=True, slots=True)
class Unfit:
    """A message that is no fragment of this session, and why."""

    code: str
    message: str
    final_of: bytes = b""
    """Of a final that its host has signed: the uid that it names."""


def admit(whole: Bytes, host_key: bytes, signers: Signers = tuple) -> Fragment | Unfit:
    """Return the fragment in a message, or why it may not come to the fold.

    host_key: raw public key, 32 bytes.
    """
    try:
        fragment = parse(whole)
        if fragment.header.kind in _BODIES:
            _BODIES[fragment.header.kind].parse(fragment.body)
    except Rejected as error:
        return Unfit(error.code, error.message, signed_final(whole, host_key))
    if not _signed(fragment, host_key, signers):
        return Unfit("fragment.signature", "the signature is not of a key that may sign this")
    return fragment


def signed_final(whole: Bytes, host_key: bytes) -> bytes:
    """The uid in a final that the host has signed, whatever else is wrong with it; empty: it is none."""
    raw, signature = bytes(whole[:HEADER_BYTES]), bytes(whole[-SIGNATURE_BYTES:])
    if (
        len(whole) < HEADER_BYTES + SIGNATURE_BYTES
        or raw[:KIND_AT] != FIRST_BYTES
        or raw[KIND_AT] != Kind.FINAL
    ):
        return b""
    top = head(raw, h(memoryview(whole)[HEADER_BYTES:-SIGNATURE_BYTES]))
    return raw[UID_AT : UID_AT + UID_BYTES] if verify_signature(host_key, top, signature, SIGNED) else b""


def _signed(fragment: Fragment, host_key: bytes, signers: Signers) -> bool:
    if fragment.header.kind is Kind.END:
        return any(verify_signature(key, fragment.head, fragment.signature, END_SIGNED) for key in signers())
    return verify_signature(host_key, fragment.head, fragment.signature, SIGNED)
