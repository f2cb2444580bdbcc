"""Tells whether one message of a recording is a fragment that its signer made, as far as no fold is needed.

1. Pure, and without the interpreter's lock where bytes are many: called in threads, a batch at a time.
2. Who may sign: the session's host; of an `end` fragment, the installation (the manifest's signers).
3. A final that its host has signed is known as one even where it breaks a rule of its bytes: its host sends
   no more.
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
"""Raw public keys (32 bytes each) that may sign an `end`; asked only for one."""


@dataclass(frozen=True, slots=True)
class Unfit:
    """A message that is no fragment of this session, and why."""

    code: str
    message: str
    final_of: bytes = b""
    """Of a final that its host has signed: the uid that it names."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """A message and what was found in it."""

    message: Message
    found: Fragment | Unfit | Exception

    @property
    def seq(self) -> int:
        return self.message.seq

    @property
    def folded(self) -> FoldedFragment | None:
        """For the fold; None: it is unfit. Raises what nobody foresaw."""
        match self.found:
            case Fragment() as fragment:
                return FoldedFragment.of(self.seq, fragment)
            case Unfit():
                return None
            case error:
                raise error

    def is_ending(self, uid: bytes) -> bool:
        """Whether nothing is to be expected after it, from the host of the session `uid`."""
        match self.found:
            case Fragment() as fragment:
                header = fragment.header
                return header.uid == uid and header.kind in (Kind.FINAL, Kind.END)
            case Unfit() as unfit:
                return unfit.final_of == uid
        return False

    @property
    def size(self) -> int:
        return len(self.message.data)


def admit_all(messages: Iterable[Message], host_key: bytes, end_keys: EndKeys) -> list[Arrival]:
    """Check messages of one session. Keys as in `admit`. Never raises."""
    return [Arrival(message, _admit(message, host_key, end_keys)) for message in messages]


def _admit(message: Message, host_key: bytes, end_keys: EndKeys) -> Fragment | Unfit | Exception:
    if too_long(message.headers):
        return Unfit("fragment.headers", TOO_LONG, signed_final(message.data, host_key))
    try:
        return admit(message.data, host_key, end_keys)
    except Exception as error:
        return error


def admit(whole: Bytes, host_key: bytes, end_keys: EndKeys = tuple) -> Fragment | Unfit:
    """Return the fragment in a message, or why it may not come to the fold.

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


def _signed(fragment: Fragment, host_key: bytes, end_keys: EndKeys) -> bool:
    if fragment.header.kind is Kind.END:
        return any(verify_signature(key, fragment.head, fragment.signature, END_SIGNED) for key in end_keys())
    return verify_signature(host_key, fragment.head, fragment.signature, SIGNED)
