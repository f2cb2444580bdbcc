"""Checks messages of a recording before the fold: form, body and signature of one fragment.

1. Pure. Hashing and signature checks run without the interpreter's lock: called in threads, in batches.
2. The session's host signs its fragments. The installation (the manifest's signers) signs an `end` fragment.
3. A final that its host signed counts as one even if its bytes break another rule: the host sends no more.
4. An unexpected exception is kept in the Arrival and raised when it is folded: it affects one session only.
"""

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

from handlers.crypto.signatures import verify_signature
from handlers.stages.record.pieces import FoldedFragment
from schemas.buffers import Bytes
from schemas.errors import Rejected
from schemas.events.headers import TOO_LONG, too_long
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
from schemas.ports.messages import Message

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


EndKeys = Callable[[], Collection[bytes]]
"""Returns the raw public keys (32 bytes each) that may sign an `end`. Called only for an `end`."""


@dataclass(frozen=True, slots=True)
class Unfit:
    """A message that is no fragment of this session, with code and reason."""

    code: str
    message: str
    final_of: bytes = b""
    """The uid in a final that the host has signed; else empty."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """A message and the result of its check."""

    message: Message
    found: Fragment | Unfit | Exception

    @property
    def seq(self) -> int:
        return self.message.seq

    @property
    def folded(self) -> FoldedFragment | None:
        """The fragment for the fold; None: it is unfit. Raises an unexpected exception of the check."""
        match self.found:
            case Fragment() as fragment:
                return FoldedFragment.of(self.seq, fragment)
            case Unfit():
                return None
            case error:
                raise error

    def is_ending(self, uid: bytes) -> bool:
        """Whether the host of session `uid` sends nothing after this message."""
        match self.found:
            case Fragment() as fragment:
                header = fragment.header
                return header.uid == uid and header.kind in (Kind.FINAL, Kind.END)
            case Unfit() as unfit:
                return unfit.final_of == uid
        return False

    @property
    def size(self) -> int:
        return self.message.size


def admit_all(messages: Iterable[Message], host_key: bytes, end_keys: EndKeys) -> list[Arrival]:
    """Check messages of one session, in order. Keys as in `admit`. Never raises."""
    return [Arrival(message, _admit(message, host_key, end_keys)) for message in messages]


def _admit(message: Message, host_key: bytes, end_keys: EndKeys) -> Fragment | Unfit | Exception:
    if too_long(message.headers):
        return Unfit("fragment.headers", TOO_LONG, signed_final(message.data, host_key))
    try:
        return admit(message.data, host_key, end_keys)
    except Exception as error:
        return error


def admit(whole: Bytes, host_key: bytes, end_keys: EndKeys = tuple) -> Fragment | Unfit:
    """Return the fragment in a message, or the reason why the fold must not see it.

    host_key: raw public key, 32 bytes.
    """
    try:
        fragment = parse(whole)
        if fragment.header.kind in _BODIES:
            _BODIES[fragment.header.kind].parse(fragment.body)
    except Rejected as error:
        return Unfit(error.code, error.message, signed_final(whole, host_key))
    if not _signed(fragment, host_key, end_keys):
        return Unfit("fragment.signature", "the signature is not of a key that may sign this")
    return fragment


def signed_final(whole: Bytes, host_key: bytes) -> bytes:
    """Return the uid in a final that the host signed, even if it breaks other rules; else empty."""
    raw, signature = bytes(whole[:HEADER_BYTES]), bytes(whole[-SIGNATURE_BYTES:])
    if (
        len(whole) < HEADER_BYTES + SIGNATURE_BYTES
        or raw[:KIND_AT] != FIRST_BYTES
        or raw[KIND_AT] != Kind.FINAL
    ):
        return b""
    top = head(raw, h(memoryview(whole)[HEADER_BYTES:-SIGNATURE_BYTES]))
    return raw[UID_AT : UID_AT + UID_BYTES] if verify_signature(host_key, top, signature, SIGNED) else b""


def _signed(fragment: Fragment, host_key: bytes, end_keys: EndKeys) -> bool:
    if fragment.header.kind is Kind.END:
        return any(verify_signature(key, fragment.head, fragment.signature, END_SIGNED) for key in end_keys())
    return verify_signature(host_key, fragment.head, fragment.signature, SIGNED)
