"""Owns the shapes in which streams and the NATS driver speak to each other.

1. No NATS type and no NATS constant leaves the driver: these do.
2. `seq` is always a stream sequence, times are nanoseconds since 1970 UTC as the server wrote them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from schemas.buffers import Bytes

MSG_ID = "Nats-Msg-Id"


@dataclass(slots=True)
class Message:
    """One message of a stream, or (seq 0) one request.

    `pending` is how many more the source had when it sent this one, `reply` is where the ack goes
    (0 and empty for messages that were read directly).
    """

    subject: str
    data: Bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    seq: int = 0
    stream_time_ns: int = 0
    deliveries: int = 1
    pending: int = 0
    reply: str = ""


@dataclass(frozen=True, slots=True)
class PubAck:
    """The stream holds the message durably. `duplicate`: it already did, under the same message id."""

    seq: int
    duplicate: bool


@dataclass(frozen=True, slots=True)
class Discontinuity:
    """A follower lost its place and took it up again: nothing was skipped, the next is ≥ `next_seq`."""

    reason: str
    next_seq: int


@dataclass(frozen=True, slots=True)
class Account:
    """What an account of the server keeps in JetStream, and what it may; -1: no limit of its own."""

    streams: int
    max_streams: int
    bytes: int
    max_bytes: int


@dataclass(frozen=True, slots=True)
class StreamSpec:
    """What a stream is to be. `partitions` 0: not partitioned; otherwise fixed for ever."""

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


@dataclass(frozen=True, slots=True)
class ConsumerSpec:
    """What a durable pull consumer with explicit acks is to be.

    `start_seq` is where it begins when it is made; an existing one keeps its place.
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
    """Where a durable consumer stands: all that its filters name is acknowledged up to stream seq `floor`."""

    name: str
    filters: frozenset[str]
    floor: int
    is_read: bool
    """Somebody asks it for messages now."""


@dataclass(frozen=True, slots=True)
class StreamInfo:
    """What a stream holds now. `last_seq` never falls; `first_seq` is last_seq + 1 when it is empty."""

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
    """The server's own clock, by which it stamps messages. µs; 0: it does not say."""
