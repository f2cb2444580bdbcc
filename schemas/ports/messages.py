"""The data types of the broker ports: messages, acks, and the state of streams and consumers.

1. No NATS type and no NATS constant leaves the driver.
2. `seq` is always a stream sequence. `_ns` and `_us` are times since 1970 UTC by the server's clock.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from schemas.buffers import Bytes

MSG_ID = "Nats-Msg-Id"


@dataclass(slots=True)
class Message:
    """One message of a stream, or one request (seq 0).

    stream: the name of its stream; pending: messages left for the reader when this one was sent; reply:
    subject of the ack. A message that was read directly has none of the three.
    """

    subject: str
    data: Bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    seq: int = 0
    stream_time_ns: int = 0
    deliveries: int = 1
    pending: int = 0
    reply: str = ""
    stream: str = ""

    @property
    def size(self) -> int:
        """The bytes that it holds. Whoever keeps messages counts all: anybody can send some without data."""
        headers = sum(len(name) + len(text) for name, text in self.headers.items())
        return len(self.subject) + len(self.reply) + headers + len(self.data)


@dataclass(frozen=True, slots=True)
class PubAck:
    """The stream holds the message durably. duplicate: it had one with this message id before."""

    seq: int
    duplicate: bool


@dataclass(frozen=True, slots=True)
class Discontinuity:
    """A follower lost its place and found it again. Nothing was skipped; the next seq is ≥ `next_seq`."""

    reason: str
    next_seq: int
    stream: str = ""


@dataclass(frozen=True, slots=True)
class Account:
    """Use and limits of an account in JetStream; -1: no limit of its own."""

    streams: int
    max_streams: int
    bytes: int
    max_bytes: int


@dataclass(frozen=True, slots=True)
class StreamSpec:
    """The settings of a stream.

    partitions: fixed for ever; 0: not partitioned. shards: streams that share the partitions, fixed for ever;
    0: it is not one of several.
    """

    name: str
    subjects: tuple[str, ...]
    max_bytes: int
    description: str = ""
    discard: Literal["new", "old"] = "new"
    max_age_s: float = 0
    max_msg_bytes: int = -1
    duplicate_window_s: float = 120
    allow_direct: bool = True
    replicas: int = 1
    partitions: int = 0
    shards: int = 0


@dataclass(frozen=True, slots=True)
class ConsumerSpec:
    """The settings of a durable pull consumer with explicit acks.

    start_seq: first sequence of a new consumer; an existing one keeps its place.
    """

    name: str
    filters: tuple[str, ...]
    ack_wait_s: float = 8
    max_ack_pending: int = 20_000
    max_waiting: int = 512
    start_seq: int = 1
    description: str = ""


@dataclass(frozen=True, slots=True)
class ConsumerInfo:
    """The place of a durable consumer: its messages up to stream sequence `floor` are acknowledged."""

    name: str
    filters: frozenset[str]
    floor: int
    is_read: bool
    """A client requests messages from it now."""
    delivered: int = 0
    """The highest stream sequence that it has delivered."""

    pending: int = 0
    """Messages that were never delivered."""
    unacknowledged: int = 0
    """Messages that were delivered and wait for their ack."""
    redelivered: int = 0
    """Those of them that were delivered more than once."""


@dataclass(frozen=True, slots=True)
class StreamInfo:
    """The state of a stream. `last_seq` never falls; in an empty stream `first_seq` is last_seq + 1."""

    name: str
    messages: int
    bytes: int
    first_seq: int
    last_seq: int
    max_bytes: int
    consumers: int
    subjects: int
    metadata: Mapping[str, str]
    now_us: int = 0
    """The server's clock, which stamps messages, µs; 0: unknown."""
