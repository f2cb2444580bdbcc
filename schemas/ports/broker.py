"""The ports of the broker: read, write and erase messages, consume work, answer requests.

1. stream: a name in schemas.subjects; seq: a stream sequence, from 1 on.
2. Subjects of reading methods may hold wildcards.
3. Any number of tasks may call one object at once, except a Follower. Every method may raise Unavailable.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol, Self

from schemas.buffers import Bytes
from schemas.ports.access import Credential
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
from schemas.ports.telemetry import Tracer


class Follower(Protocol):
    """Every message from a sequence on, in order, each once, without end. One task may use it."""

    def __aiter__(self) -> Self: ...

    async def __anext__(self) -> Message | Discontinuity: ...

    async def batch(self) -> list[Message | Discontinuity]:
        """Wait for at least one item and return all that have arrived; empty after `close`."""

    async def close(self) -> None:
        """End the iteration, also of a task that waits in it. A second call does nothing."""


class MergedFollower(Protocol):
    """Several streams at once, each as a Follower reads it. One task may use it."""

    async def batch(self) -> list[Message | Discontinuity]:
        """Wait for at least one item and return all that have arrived; empty after `close`.

        Items of one stream are in its order. A stream that is not readable stops no other.
        """

    async def close(self) -> None:
        """End, also a task that waits in `batch`. A second call does nothing."""


class Reader(Protocol):
    """Reads streams and changes nothing. The leader confirms absence, except in `batch`."""

    async def get(self, stream: str, seq: int) -> Message | None:
        """Return one message; None: it does not exist, or no longer."""

    async def last(self, stream: str, subject: str) -> Message | None:
        """Return the newest message of a subject; None: there is none."""

    async def batch(
        self, stream: str, subject: str, from_seq: int = 1, max_messages: int = ..., max_bytes: int = ...
    ) -> tuple[list[Message], bool]:
        """Return messages of a subject in order, within both limits, and whether there are more.

        One replica answers, and it may lag: "no more" is certain only from `last` and `read_all`.
        """

    async def get_many(self, stream: str, seqs: Sequence[int]) -> dict[int, Message]:
        """Return messages by sequence, without the missing ones. All of them are in memory at once."""

    async def lasts(self, stream: str, subjects: Sequence[str], known_to: int) -> dict[str, Message]:
        """Return the newest message of each of at most 1024 subjects, at sequence `known_to` or later.

        Raises Unavailable (stream.lags): the answering replica has not reached `known_to` yet.
        """

    def read_all(self, stream: str, subject: str, from_seq: int = 1) -> AsyncIterator[Message]:
        """Yield every message of a subject that the stream holds now, in order."""

    def follow(self, stream: str, filters: Sequence[str], from_seq: int = 1) -> Follower:
        """Follow the subjects from a sequence on: stored messages first, then new ones."""

    def follow_all(
        self, sources: Iterable[tuple[str, Sequence[str], int]], share: float = 1.0
    ) -> MergedFollower:
        """Follow several streams: each with its subjects, from its sequence on.

        share: the part of all messages that this reader takes, 0 to 1; others take the rest.
        """

    async def info(self, stream: str) -> StreamInfo:
        """Return the state of a stream. Raises NotFound (stream.absent)."""

    async def subject_counts(self, stream: str, subject: str) -> dict[str, int]:
        """Return the number of messages by subject."""


class Writer(Protocol):
    """Adds messages. A message is durable when its call returns; after Unavailable it may be, too."""

    tracer: Tracer
    """Begins the spans of the work that is done over this connection."""

    @property
    def max_payload(self) -> int:
        """Greatest message in bytes, headers included, from the server's last greeting."""

    async def publish(
        self, subject: str, data: Bytes, headers: Mapping[str, str] | None = None, msg_id: str | None = None
    ) -> PubAck:
        """Add one message. A second call with the same `msg_id` within the stream's window adds none.

        Without `msg_id` a second call adds a second message. Raises NoSpace (stream.full, disk.full).
        """

    async def append(
        self, subject: str, data: Bytes, expected_seq: int, headers: Mapping[str, str] | None = None
    ) -> int:
        """Add one message if `expected_seq` is the last of its subject (0: none). Returns its sequence.

        Raises NoSpace, Conflict (append.conflict): another message was first. A second call conflicts with
        the first one, too: the caller then reads the subject.
        """


class Eraser(Protocol):
    """Removes messages: nobody can read them on return, but their bytes may stay on disk."""

    async def purge(self, stream: str, subject: str, up_to_seq: int | None = None) -> int:
        """Remove messages of a subject, up to and including `up_to_seq`. Returns how many; again: 0."""

    async def keep_newest(self, stream: str, subject: str, count: int) -> int:
        """Remove messages of a subject, the oldest first, down to `count` ≥ 1. Returns how many; again: 0."""

    async def delete(self, stream: str, seq: int) -> bool:
        """Remove one message. False: there was none, as after a first call."""


class Consumer(Protocol):
    """The messages of one durable consumer. Several tasks may call `get` at once; each message goes to one.

    A message without an ack within ConsumerSpec.ack_wait_s is delivered again, perhaps to another process.
    """

    async def get(self) -> Message:
        """Wait for the next message, without limit. Raises Unavailable (pull.closed) after `close`."""

    @property
    def waiting(self) -> tuple[Message, ...]:
        """Messages that were fetched ahead and that no `get` has taken."""

    async def ack(self, message: Message) -> None:
        """Acknowledge a message, unconfirmed: a lost ack brings it again. A second call does nothing.

        On return of `close`, the server has every ack that no break of the connection has taken.
        Raises Unavailable: the connection is down.
        """

    async def ack_sync(self, message: Message) -> None:
        """Acknowledge a message; the server has confirmed it on return. A second call does nothing."""

    async def nak(self, message: Message, delay_s: float = 0) -> None:
        """Return a message for redelivery after `delay_s`. A lost nak delays it until `ack_wait_s`."""

    async def in_progress(self, message: Message) -> None:
        """Restart `ack_wait_s` for this message. May be called any number of times."""

    async def close(self) -> None:
        """Stop fetching, and return the messages in `waiting`. A second call does nothing."""


class Jet(Reader, Writer, Eraser, Protocol):
    """One connection to the broker, with all its methods."""

    credential: Credential
    """The token of the commands that are sent over this connection (streams/control/client.py)."""

    @property
    def url(self) -> str:
        """Address of the server, with credentials: not for logs."""

    async def account(self) -> Account:
        """Return use and limits of our account.

        Raises Unavailable (nats.no_jetstream), Denied (nats.forbidden).
        """

    async def declare(self, spec: StreamSpec) -> list[str]:
        """Create or update a stream. Returns the changes; a second call: none.

        Raises Misuse (topology.drift): it exists with settings that cannot be changed.
        """

    async def upsert_consumer(self, stream: str, spec: ConsumerSpec) -> list[str]:
        """Create or update a durable consumer; an existing one keeps its place. Returns the changes."""

    async def consumers(self, stream: str) -> list[ConsumerInfo]:
        """Return the place of every durable consumer of a stream."""

    async def delete_consumer(self, stream: str, name: str) -> None:
        """Remove a durable consumer. A second call does nothing."""

    def pull(
        self, stream: str, consumer: str, batch: int, *, upsert: Callable[[], Awaitable[object]]
    ) -> Consumer:
        """Read a durable consumer, at most `batch` messages ahead. `upsert` creates a lost one again."""

    async def request(
        self, subject: str, data: bytes, timeout_s: float = ..., headers: Mapping[str, str] | None = None
    ) -> bytes:
        """Return the answer of one service. Raises Unavailable: none serves, or none answers in time.

        After that the service may still have done the work.
        """

    async def request_all(
        self, subject: str, data: bytes, timeout_s: float, take: Callable[[bytes], bool]
    ) -> None:
        """Give the answer of each service to `take`, until it returns True or `timeout_s` has passed.

        Answers that come after that, within `timeout_s`, are given to `take`, too.
        Raises Unavailable: the connection is down.
        """

    async def tell(self, subject: str, data: bytes) -> None:
        """Send to all that hear this subject now. Raises Unavailable: the connection is down."""

    def hear(self, subject: str, take: Callable[[bytes], None]) -> AbstractAsyncContextManager[None]:
        """Give each message of this subject to `take` inside the context."""

    def serve(self, subject: str, answer: Callable[[], bytes]) -> AbstractAsyncContextManager[None]:
        """Answer every request of this subject inside the context. The first of several answers counts."""
