"""Declares the streams: their subjects, their shares of the disk, how long they keep messages.

1. All limits together stay below the server's promise. The rest is the reserve in which sessions still end.
2. Evidence, and events that lead to it, never expire by age; no newer message pushes them out. A full stream
   refuses (NoSpace), and the publisher waits. Only DEAD drops the oldest: a refusal can always be written.
3. Deletion and purge are allowed: a destroyed session's fragments and events are purged. No stream holds a
   key, because deletion by a broker is never trusted as erasure.
4. RECORDINGS has the shortest window for message ids: dedupe would let one host swallow another's message.
"""

from dataclasses import replace

from schemas.errors import Misuse, NotFound
from schemas.ports import Jet
from schemas.ports.messages import StreamSpec
from schemas.subjects import (
    ALL_CHUNKS,
    ALL_COUNTERS,
    ALL_DEAD,
    ALL_ERASURES,
    ALL_HOSTS,
    ALL_LIFECYCLE,
    ALL_OPEN,
    ALL_RECORDINGS,
    CHUNKS,
    DEAD,
    INSTALLATION,
    KEY_COPIES,
    KEYS_MADE,
    LIFECYCLE,
    OPEN,
    PARTITIONS,
    RECORDINGS,
)

SHARES = {RECORDINGS: 0.80, CHUNKS: 0.08, LIFECYCLE: 0.05, DEAD: 0.03, OPEN: 0.005}
"""Shares of the bytes that the server promises to all streams; the rest is the reserve."""
DEFAULT_STORAGE_BYTES = 64 << 30
"""Shared out on a foreign server, when no setting says how much it gives."""
NAMES = tuple(SHARES)
EVENT_BYTES = 800 << 10
"""The largest event with its headers; a test makes it. A lower limit would end that recording."""
DEAD_AGE_S = 30 * 86_400
SHORTEST_WINDOW_S = 0.1
"""The shortest duplicate window that the server accepts."""


def streams(storage_bytes: int, replicas: int = 1) -> tuple[StreamSpec, ...]:
    """Every stream, with its share of `storage_bytes`."""

    def spec(
        name: str,
        subjects: tuple[str, ...],
        description: str,
        *,
        partitions: int = 0,
        keeps: str = "for good",
        window_s: float = 120,
    ) -> StreamSpec:
        return StreamSpec(
            name,
            subjects,
            int(storage_bytes * SHARES[name]),
            description=description,
            discard="new" if keeps == "for good" else "old",
            max_age_s=0 if keeps == "for good" else DEAD_AGE_S,
            duplicate_window_s=window_s,
            replicas=replicas,
            partitions=partitions,
        )

    return (
        spec(
            RECORDINGS,
            (ALL_RECORDINGS,),
            "sealed fragments as hosts sent them",
            partitions=PARTITIONS,
            window_s=SHORTEST_WINDOW_S,
        ),
        spec(CHUNKS, (ALL_CHUNKS,), "what each stage says to the next", partitions=PARTITIONS),
        spec(
            LIFECYCLE,
            (ALL_LIFECYCLE, ALL_HOSTS, ALL_COUNTERS, INSTALLATION, ALL_ERASURES, KEYS_MADE, KEY_COPIES),
            "the event-sourced log of sessions and hosts",
        ),
        replace(
            spec(
                OPEN,
                (ALL_OPEN,),
                "which sessions are not finished; made from LIFECYCLE, and made anew at will",
                keeps="the newest",
            ),
            max_age_s=0,
        ),
        spec(DEAD, (ALL_DEAD,), "what was refused, and why", keeps="the newest"),
    )


def check_payload(jet: Jet) -> None:
    """Check before a service starts that the largest event fits. Raises Misuse (nats.max_payload)."""
    if jet.max_payload < EVENT_BYTES:
        raise Misuse(
            f"the NATS server takes messages of at most {jet.max_payload} bytes; "
            f"events have up to {EVENT_BYTES}",
            code="nats.max_payload",
            hint="raise max_payload in that server's configuration (1 MB is its default)",
        )


async def declare(jet: Jet, storage_bytes: int = 0, replicas: int = 1) -> dict[str, list[str]]:
    """Create or change every stream as declared; return the changes by stream. A second call does nothing.

    storage_bytes: the server's promise to all streams; 0: existing streams keep their limits, others share
    DEFAULT_STORAGE_BYTES. Raises Misuse (topology.drift), NoSpace (stream.full, account.streams).
    """
    changes = {}
    for spec in streams(storage_bytes or DEFAULT_STORAGE_BYTES, replicas):
        wanted = spec if storage_bytes else await _as_large_as_it_is(jet, spec)
        changed = await jet.declare(wanted)
        if changed:
            changes[spec.name] = changed
    return changes


async def _as_large_as_it_is(jet: Jet, spec: StreamSpec) -> StreamSpec:
    try:
        held = await jet.info(spec.name)
    except NotFound:
        return spec
    return replace(spec, max_bytes=held.max_bytes)
