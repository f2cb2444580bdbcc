"""Owns how much data a publisher may still send: the platform says how much, and is asked again in time.

1. Asked before the first byte, when what was allowed is sent, and after a refusal for want of space.
2. It counts data only. Ticks, gaps and endings never ask: the space that is kept for them is theirs.
3. Nobody answers: that stops no recording. A little more is sent, and the stream itself refuses what does not
   fit; from that refusal on only an answer opens it again.
"""

from collections.abc import Awaitable, Callable
from functools import partial

from schemas.errors import LucidError
from schemas.ports import Jet
from streams.control.client import call

UNANSWERED_BYTES = 4 << 20
ANSWER_S = 2.0

Ask = Callable[[int], Awaitable[tuple[int, float]]]
"""Bytes that are under way → bytes that may be sent, and which share of the stream is full."""


async def ask_room(jet: Jet, sending: int) -> tuple[int, float]:
    """Ask the command service. Raises Unavailable."""
    answer = await call(jet, "room", {"sending": sending}, ANSWER_S)
    return int(answer["data"]), answer["used"] / answer["limit"] if answer["limit"] > 0 else 0.0


class SendQuota:
    """What one publisher may send. `filled`: the share of the stream that was full at the last answer."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._left = 0
        self._refused = False
        self.filled = 0.0

    @classmethod
    def of(cls, jet: Jet) -> "SendQuota":
        return cls(partial(ask_room, jet))

    async def take(self, size: int, sending: int) -> bool:
        """Whether a block of data may be sent now; it is then counted. sending: bytes under way."""
        if self._left <= 0:
            try:
                self._left, self.filled = await self._ask(sending)
                self._refused = False
            except LucidError:
                self._left = 0 if self._refused else UNANSWERED_BYTES
        if self._left <= 0:
            return False
        self._left -= size
        return True

    def refuse(self) -> None:
        """The stream has refused something for want of space."""
        self._left, self._refused, self.filled = 0, True, 1.0
