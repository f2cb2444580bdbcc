"""Owns what services ask of the broker: to read, add and erase messages, to be handed work, to be answered.

`stream` is one of schemas.subjects' streams, `seq` a stream sequence from 1 on; subjects that are read may
hold wildcards.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol, Self

from schemas.buffers import Bytes
from schemas.ports.messages import (
    Account,
    ConsumerInfo,
    ConsumerSpec,
    Discontinuity,
    Message,
    PubAck,
    StreamInfo,
    StreamSpec,
)


class Follower(Protocol):
    """A stream from a sequence on, for ever: in order, each message once, none left out. For one task."""

    def __aiter__(self) -> Self: ...

    async def __anext__(self) -> Message | Discontinuity: ...

    async def batch(self) -> list[Message | Discontinuity]:
        """All that has arrived, at least one item; empty once it is closed."""

    async def close(self) -> None:
        """End the iteration. A second call does nothing."""


class Reader(Protocol):
    """What stands in the streams. Absence is believed of the leader alone, but for `batch`."""

    async def get(self, stream: str, seq: int) -> Message | None:
        """One message; None: it is not there, or not any more."""

    async def last(self, stream: str, subject: str) -> Message | None:
        """The newest message of a subject; None: there is none."""

    async def batch(
        self, stream: str, subject: str, from_seq: int = 1, max_messages: int = ..., max_bytes: int = ...
    ) -> tuple[list[Message], bool]:
        """Messages of a subject in order, as many as fit, and whether more are there.

        One replica answers, which may lag: that there is no more only the leader knows (`last`, `read_all`).
        """

    async def get_many(self, stream: str, seqs: Sequence[int]) -> dict[int, Message]:
        """Messages by sequence; a missing one is left out. All are in memory together."""

    async def lasts(self, stream: str, subjects: Sequence[str], known_to: int) -> dict[str, Message]:
        """The newest message of each of at most 1024 subjects, as of `known_to` or later.

        Raises Unavailable (stream.lags): the replica that answers has not heard of `known_to` yet.
        """

    def read_all(self, stream: str, subject: str, from_seq: int = 1) -> AsyncIterator[Message]:
        """Every message of a subject that the stream holds now, in order."""

    def follow(self, stream: str, filters: Sequence[str], from_seq: int = 1) -> Follower:
        """What the subjects hold from a sequence on, and what will come."""

    async def info(self, stream: str) -> StreamInfo:
        """What a stream holds now. Raises NotFound (stream.absent)."""

    async def subject_counts(self, stream: str, subject: str) -> dict[str, int]:
        """Messages by subject."""


class Writer(Protocol):
    """Adds messages. A message is durable when its call returns."""

    @property
    def max_payload(self) -> int:
        """Most bytes of one message, headers included, as the server said when it was connected last."""

    async def publish(
        self, subject: str, data: Bytes, headers: Mapping[str, str] | None = None, msg_id: str | None = None
    ) -> PubAck:
        """Add one message. msg_id: a repetition within the stream's window is not stored again.

        Raises NoSpace (stream.full, disk.full), Unavailable.
        """

    async def append(
        self, subject: str, data: bytes, expected_seq: int, headers: Mapping[str, str] | None = None
    ) -> int:
        """Add one message if `expected_seq` is the last of its subject (0: none); its sequence.

        Raises Conflict (append.conflict), also when an earlier try of ours was the one that won.
        """


class Eraser(Protocol):
    """Takes messages away. Safe to repeat."""

    async def purge(self, stream: str, subject: str, up_to_seq: int | None = None) -> int:
        """Drop messages of a subject, up to and with `up_to_seq`; how many. Their bytes may stay on disk."""

    async def delete(self, stream: str, seq: int) -> bool:
        """Take one message away; its bytes may stay on disk. False: it was not there."""


class Consumer(Protocol):
    """The messages of one durable consumer. `get` may be called by several tasks at once.

    Whatever is not acknowledged in time (ConsumerSpec.ack_wait_s) is delivered again, perhaps to others.
    """

    async def get(self) -> Message:
        """The next message, however long that takes. Raises Unavailable (pull.closed) once it is closed."""

    @property
    def waiting(self) -> tuple[Message, ...]:
        """What was fetched ahead, and no `get` has taken yet."""

    async def ack_sync(self, message: Message) -> None:
        """Return when the server has noted that the message is done. Raises Unavailable."""

    async def nak(self, message: Message, delay_s: float = 0) -> None:
        """Hand a message back, to be delivered again after `delay_s`."""

    async def in_progress(self, message: Message) -> None:
        """Begin the message's time anew."""

    async def close(self) -> None:
        """Take no more, and hand back what was fetched ahead. A second call does nothing."""


class Jet(Reader, Writer, Eraser, Protocol):
    """One connection to the broker, with everything that it can do."""

    @property
    def url(self) -> str:
        """Where the server is, credentials included: not for logs."""

    async def account(self) -> Account:
        """What our account may keep. Raises Unavailable (nats.no_jetstream), Denied (nats.forbidden)."""

    async def declare(self, spec: StreamSpec) -> list[str]:
        """Make a stream what it should be; what was changed. Raises Misuse (topology.drift)."""

    async def upsert_consumer(self, stream: str, spec: ConsumerSpec) -> list[str]:
        """Make a durable consumer what it should be; what was changed."""

    async def consumers(self, stream: str) -> list[ConsumerInfo]:
        """Where every durable consumer of a stream stands."""

    async def delete_consumer(self, stream: str, name: str) -> None:
        """Forget a durable consumer; one that is not there is no error."""

    def pull(
        self, stream: str, consumer: str, batch: int, *, upsert: Callable[[], Awaitable[object]]
    ) -> Consumer:
        """Read a durable consumer, at most `batch` messages ahead; `upsert` makes one that is gone again."""

    async def request(self, subject: str, data: bytes, timeout_s: float = ...) -> bytes:
        """One service's answer. Raises Unavailable: none serves, or none answers in time."""

    def serve(self, subject: str, answer: Callable[[], bytes]) -> AbstractAsyncContextManager[None]:
        """Answer every request of this subject meanwhile. If others do, too, the first answer counts."""
