"""Owns whether one message of a recording is a fragment that its signer made: what needs no fold to know.

1. Pure, and without the interpreter's lock where bytes are many: called in threads, a batch at a time.
2. Who may sign: the session's host; of an `end` fragment, the installation (the manifest's signers).
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass

from handlers.signatures import verify_signature
from schemas.buffers import Bytes
from schemas.errors import Rejected
from schemas.fragment import (
    END_SIGNED,
    SIGNED,
    EndBody,
    FinalBody,
    Fragment,
    GapBody,
    Kind,
    PartBody,
    ReasonBody,
    parse,
)

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


def admit(whole: Bytes, host_key: bytes, signers: Signers = tuple) -> Fragment | Unfit:
    """Return the fragment in a message, or why it may not come to the fold.

    host_key: raw public key, 32 bytes.
    """
    try:
        fragment = parse(whole)
        if fragment.header.kind in _BODIES:
            _BODIES[fragment.header.kind].parse(fragment.body)
    except Rejected as error:
        return Unfit(error.code, error.message)
    if not _signed(fragment, host_key, signers):
        return Unfit("fragment.signature", "the signature is not of a key that may sign this")
    return fragment


def _signed(fragment: Fragment, host_key: bytes, signers: Signers) -> bool:
    if fragment.header.kind is Kind.END:
        return any(verify_signature(key, fragment.head, fragment.signature, END_SIGNED) for key in signers())
    return verify_signature(host_key, fragment.head, fragment.signature, SIGNED)
