"""Owns one message of a recording, looked at: checked in a thread, before it is folded on the event loop.

An error that nobody foresaw is kept, and raised where the message is folded: so it reaches one session only.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from handlers.stages.record.admit import Signers, Unfit, admit, signed_final
from handlers.stages.record.open_chunk import FoldedFragment
from schemas.events.headers import TOO_LONG, too_long
from schemas.format.fragment import Fragment, Kind
from schemas.ports.messages import Message


@dataclass(frozen=True, slots=True)
class Arrival:
    """A message and what was found in it."""

    message: Message
    found: Fragment | Unfit | Exception

    @property
    def seq(self) -> int:
        return self.message.seq

    @property
    def piece(self) -> FoldedFragment | None:
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


def look(messages: Iterable[Message], host_key: bytes, signers: Signers) -> list[Arrival]:
    """Check messages of one session. Keys as in `admit`. Never raises."""
    return [Arrival(message, _admit(message, host_key, signers)) for message in messages]


def _admit(message: Message, host_key: bytes, signers: Signers) -> Fragment | Unfit | Exception:
    if too_long(message.headers):
        return Unfit("fragment.headers", TOO_LONG, signed_final(message.data, host_key))
    try:
        return admit(message.data, host_key, signers)
    except Exception as error:
        return error
