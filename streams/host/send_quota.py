"""Limits the data that a publisher sends: the platform grants a quota, and is asked again when it is spent.

1. It is asked before the first byte, when the quota is spent, and after a refusal for lack of space.
2. The quota is for data only. Ticks, gaps and endings have space reserved, and never ask.
3. A recording does not stop if nobody answers. UNANSWERED_BYTES more are sent, and the stream itself refuses
   a fragment without space; after that refusal only an answer grants a new quota.
"""

from collections.abc import Awaitable, Callable
from functools import partial

from schemas.errors import LucidError
from schemas.ports import Credential, Jet
from streams.control.client import call

UNANSWERED_BYTES = 4 << 20
ANSWER_S = 2.0

Ask = Callable[[int], Awaitable[tuple[int, float]]]
"""Takes the bytes under way; returns the bytes that may be sent, and the share of the stream in use."""


async def ask_platform(
    jet: Jet, session: str, credential: Credential | None, sending: int
) -> tuple[int, float]:
    """Ask the command service for the session's part of its stream. Raises Unavailable, Denied."""
    body = {"session": session, "sending": sending}
    answer = await call(jet, "room", body, ANSWER_S, credential)
    return int(answer["data"]), answer["used"] / answer["limit"] if answer["limit"] > 0 else 0.0


class SendQuota:
    """The quota of one publisher. filled: the share of the stream in use at the last answer."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._left = 0
        self._refused = False
        self.filled = 0.0

    @classmethod
    def of(cls, jet: Jet, session: str, credential: Credential | None = None) -> "SendQuota":
        """credential: of the host; None: that of the connection counts."""
        return cls(partial(ask_platform, jet, session, credential))

    async def take(self, size: int, sending: int) -> bool:
        """Whether a block of data may be sent now; if so, it is counted. sending: bytes under way."""
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
        """The stream has refused a fragment for lack of space."""
        self._left, self._refused, self.filled = 0, True, 1.0
