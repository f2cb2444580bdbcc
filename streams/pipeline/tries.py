"""Remembers how often this process tried each message of its stages, and the last error of each.

1. A message is known from its first delivery until its outcome is written; one that was handed back, too.
2. `deliveries` is the server's count: it goes on over a restart of the worker.
3. At most FAILED_KEPT messages that were handed back are remembered, the newest ones.
"""

from collections import OrderedDict
from dataclasses import dataclass

from schemas import subjects
from schemas.errors import LucidError
from schemas.events.tries import TEXT_MOST, Try, write_tries
from schemas.ports.messages import Message

FAILED_KEPT = 1000


@dataclass(slots=True)
class _Try:
    partition: int
    deliveries: int
    published_us: int
    busy: bool = True
    code: str = ""
    text: str = ""


class Tries:
    """The tries of one process. Used from one event loop."""

    def __init__(self) -> None:
        self._known: dict[int, _Try] = {}
        """By sequence in CHUNKS, busy ones."""
        self._failed: OrderedDict[int, _Try] = OrderedDict()
        """By sequence in CHUNKS, those that were handed back."""

    def begin(self, message: Message) -> None:
        """The message was delivered."""
        before = self._failed.pop(message.seq, None)
        one = _Try(subjects.partition_of(message.subject), message.deliveries, message.stream_time_ns // 1000)
        if before is not None:
            one.code, one.text = before.code, before.text
        self._known[message.seq] = one

    def fail(self, message: Message, error: Exception) -> None:
        """Its job failed: it will be delivered again, or goes to DEAD."""
        one = self._known.pop(message.seq, None)
        if one is None:
            return
        one.busy = False
        one.code = error.code if isinstance(error, LucidError) else "job.failed"
        text = error.message if isinstance(error, LucidError) else str(error) or type(error).__name__
        one.text = text[:TEXT_MOST]
        self._failed[message.seq] = one
        if len(self._failed) > FAILED_KEPT:
            self._failed.popitem(last=False)

    def end(self, message: Message) -> None:
        """Its outcome is written."""
        self._known.pop(message.seq, None)
        self._failed.pop(message.seq, None)

    def answer(self, partition: int) -> bytes:
        """The messages of one partition (schemas/events/tries.py)."""
        found = {
            seq: Try(one.deliveries, one.busy, one.code, one.text, one.published_us)
            for tries in (self._failed, self._known)
            for seq, one in tries.items()
            if one.partition == partition
        }
        return write_tries(found)
