"""The names of every stream and subject, and the partition of a session.

1. Session and host names are checked before they become a token of a subject.
2. `partition` never changes: it stands in subjects and in the metadata of the streams.
3. A session's fragments are in one of SHARDS streams: that of its partition mod SHARDS. The number is in the
   metadata of RECORDINGS, the stream of shard 0, and never changes (streams/event_store/topology.py).
"""

import re
from functools import lru_cache
from typing import Literal

from blake3 import blake3

from schemas.errors import Misuse

PARTITIONS = 16
PARTITIONS_KEPT = 4096
"""Names whose partition is remembered: more than the sessions that run at once. A name has at most 4 KiB."""
SHARD_COUNTS = (1, 2, 4, 8, 16)
"""The allowed numbers of recording streams. Each divides PARTITIONS, so all streams hold equally many."""
PARTITIONS_KEY, SHARDS_KEY = "lucid.partitions", "lucid.shards"
"""In the metadata of streams."""

RECORDINGS, CHUNKS, LIFECYCLE, DEAD = "RECORDINGS", "CHUNKS", "LIFECYCLE", "DEAD"
OPEN, AUDIT, REQUESTS = "OPEN", "AUDIT", "REQUESTS"

ALL_RECORDINGS, ALL_CHUNKS, ALL_DEAD = "lucid.rec.*.*.*", "lucid.chunk.*.*.*", "lucid.dead.*.*.*"
ALL_LIFECYCLE, ALL_HOSTS = "lucid.lifecycle.*", "lucid.hosts.*"
INSTALLATION, ALL_ERASURES, KEY_COPIES = "lucid.installation", "lucid.erasures.*", "lucid.keycopies"
"""In LIFECYCLE: the keys that `keys/` must hold, those that must be erased, and the copies of `keys/`."""
KEYS_MADE = "lucid.keysmade"
"""In LIFECYCLE: the key files of sessions that were made."""
ALL_COUNTERS, ALL_OPEN = "lucid.counters.*.*", "lucid.open.*"
OPEN_HEAD, OPEN_PART, OPEN_PLACES = "lucid.open.head", "lucid.open.part", "lucid.open.places"
AUDIT_CHAIN, AUDIT_HEADS, ALL_GRANTS = "lucid.audit.chain", "lucid.audit.heads", "lucid.access.*.*"
"""In AUDIT: the chain of entries, its signed heads, and the requests to watch or export a session."""
ALL_REQUESTS = "lucid.requests.*.*"
ALL_ASKS, ALL_JOINS = "lucid.ask.*.*", "lucid.join.*"
"""Requests of hosts, and of machines with a join token: the only ones that a host's credential reaches."""
ALL_TOLD = "lucid.told.*.*"
"""Messages of the platform to a host: the only subjects that a host's credential hears."""
FORMER_REQUESTS = "lucid.requests.*"
"""Of before, without the caller. It stays in the stream: a subject is never taken from one."""

SESSION_ID = re.compile(r"[A-Za-z0-9_-]{1,100}")
HOST_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
UPLOAD_HOST = "http-upload"
"""The platform itself as a host: of every session that a person opened. No other host may have this name."""
RESERVED_IDS = frozenset({"statistics", "health", "metrics"})

RECORDED, CHUNKED, COMPRESSED, ENCRYPTED = "recorded", "chunked", "compressed", "encrypted"
PROVEN, STORED, REDRIVEN = "proven", "stored", "redriven"


def session_id(text: str) -> str:
    """Return the id unchanged. Raises Misuse (session.id)."""
    if SESSION_ID.fullmatch(text) is None or text in RESERVED_IDS:
        raise Misuse(
            f"session id {text[:120]!r} is not allowed: 1-100 of A-Z a-z 0-9 _ -, "
            f"and not {', '.join(sorted(RESERVED_IDS))}",
            code="session.id",
        )
    return text


def host_id(text: str) -> str:
    """Return the host name unchanged. Raises Misuse (host.id)."""
    if HOST_ID.fullmatch(text) is None:
        raise Misuse(f"host name {text[:80]!r} is not allowed: 1-64 of A-Z a-z 0-9 _ -", code="host.id")
    return text


@lru_cache(PARTITIONS_KEPT)
def partition(session: str) -> int:
    """Return the partition of a session, 0 to 15: BLAKE3(session), little-endian, mod PARTITIONS."""
    return blake3(session.encode()).digest()[0] % PARTITIONS


def recording_stream(p: int, shards: int) -> str:
    """Return the stream of the fragments of partition `p`: RECORDINGS, or RECORDINGS-<shard>."""
    shard = p % shards
    return f"{RECORDINGS}-{shard}" if shard else RECORDINGS


def recording_streams(shards: int) -> tuple[str, ...]:
    """Return every stream of fragments, by shard."""
    return tuple(recording_stream(shard, shards) for shard in range(shards))


def recording_filters(shard: int, shards: int) -> tuple[str, ...]:
    """Return the subjects of one recording stream. One stream alone takes every partition by a wildcard."""
    if shards == 1:
        return (ALL_RECORDINGS,)
    return tuple(recording_filter(p) for p in range(shard, PARTITIONS, shards))


def recording(host: str, session: str) -> str:
    return f"lucid.rec.{partition(session)}.{host_id(host)}.{session_id(session)}"


def recording_by_anyone(session: str) -> str:
    """Filter for the fragments of every host under one session name."""
    return f"lucid.rec.{partition(session)}.*.{session_id(session)}"


def recording_filter(p: int) -> str:
    return f"lucid.rec.{p}.*.*"


def chunk(step: str, session: str) -> str:
    """Subject of a session's events of one step, `recorded` to `stored` or `redriven`."""
    return f"lucid.chunk.{step}.{partition(session)}.{session_id(session)}"


def chunk_filter(step: str, p: int | Literal["*"] = "*") -> str:
    return f"lucid.chunk.{step}.{p}.*"


def lifecycle(session: str) -> str:
    return f"lucid.lifecycle.{session_id(session)}"


def host_log(host: str) -> str:
    return f"lucid.hosts.{host_id(host)}"


def erasure(uid: bytes) -> str:
    return f"lucid.erasures.{uid.hex()}"


def counter(host_key: bytes, number: int) -> str:
    return f"lucid.counters.{host_key.hex()}.{number}"


def counters(host_key: bytes) -> str:
    """Filter for all counters of a key."""
    return f"lucid.counters.{host_key.hex()}.*"


def dead(stage: str, session: str) -> str:
    return f"lucid.dead.{stage}.{partition(session)}.{session_id(session)}"


def grants(session: str, key: str) -> str:
    """Subject of the requests of one person for one action on a session. key: schemas.events.access."""
    return f"lucid.access.{session_id(session)}.{key}"


def keyed_request(caller: str, name: str) -> str:
    """Subject of the request that an Idempotency-Key belongs to. Both are hex; `*` is every key."""
    return f"lucid.requests.{caller}.{name}"


def command(name: str) -> str:
    """Request subject of a command, such as `create`, `start` or `stop`."""
    return f"lucid.cmd.{name}"


def ask(host: str, name: str) -> str:
    """Request subject of a command that comes with the credential of a host. No other host may use it."""
    return f"lucid.ask.{host_id(host)}.{name}"


STAGE_STATES = "lucid.stages"
"""Request subject: a conductor answers which stages stand still."""


def host_activity(p: int) -> str:
    """Request subject: the worker of partition `p` answers when it last heard the host of each session."""
    return f"lucid.heard.{p}"


DELAYS = "lucid.delays"
"""Request subject: the conductor answers which sessions do not go on now, and why."""
METRICS = "lucid.metrics"
"""Request subject: every process answers with its measurements."""
METRICS_LEFT = "lucid.metrics.left"
"""The last message of a process that ends in order: its name and its run."""


def tries(p: int) -> str:
    """Request subject: the worker of partition `p` answers how often it tried the chunks that it has."""
    return f"lucid.tries.{p}"


def session_of(subject: str) -> str:
    """Return the session name at the end of a subject."""
    return subject.rsplit(".", 1)[1]


def partition_of(subject: str) -> int:
    """Return the partition in the subject of a session's chunk event; -1: it is none."""
    number = subject.split(".")[-2]
    return int(number) if number.isdecimal() else -1


def step_of(subject: str) -> str:
    """Return the step in a chunk event's subject, or `dead` for the subject of a dead letter."""
    _, area, step, *_ = subject.split(".")
    return step if area == "chunk" else area


def host_of(recording_subject: str) -> str:
    return recording_subject.split(".")[3]
