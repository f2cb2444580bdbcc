"""Declares the streams: their subjects, their shares of the disk, how long they keep messages.

1. All limits together stay below the server's promise. The rest is the reserve in which sessions still end.
2. Evidence, and events that lead to it, never expire by age; no newer message pushes them out. A full stream
   refuses (NoSpace), and the publisher waits. DEAD and REQUESTS drop the oldest: a refusal can always be
   written.
   A full AUDIT refuses, too: commands then are refused (audit_writer.py), and no past entry makes room.
3. Deletion and purge are allowed: a destroyed session's fragments and events are purged. No stream holds a
   key, because deletion by a broker is never trusted as erasure.
4. The recording streams have the shortest window for message ids: dedupe would let one host swallow
   another's message.
5. RECORDINGS is SHARDS streams that divide its share equally. The stream of shard 0 is made first: its
   metadata freezes the number. A start that finds it makes the missing ones, so a crash in between loses
   nothing; another number is refused. An installation without that entry has one shard.
"""

from contextlib import suppress
from dataclasses import replace

from schemas.config.places import DEFAULT_SHARDS
from schemas.errors import Misuse, NoSpace, NotFound
from schemas.ports import Jet
from schemas.ports.messages import Account, StreamSpec
from schemas.subjects import (
    ALL_CHUNKS,
    ALL_COUNTERS,
    ALL_DEAD,
    ALL_ERASURES,
    ALL_GRANTS,
    ALL_HOSTS,
    ALL_LIFECYCLE,
    ALL_OPEN,
    ALL_RECORDINGS,
    ALL_REQUESTS,
    AUDIT,
    AUDIT_CHAIN,
    AUDIT_HEADS,
    CHUNKS,
    DEAD,
    FORMER_REQUESTS,
    INSTALLATION,
    KEY_COPIES,
    KEYS_MADE,
    LIFECYCLE,
    OPEN,
    PARTITIONS,
    RECORDINGS,
    REQUESTS,
    recording_filters,
    recording_stream,
)
from streams.event_store.recordings import shards_of

SHARES = {
    RECORDINGS: 0.80,
    CHUNKS: 0.08,
    LIFECYCLE: 0.05,
    DEAD: 0.03,
    OPEN: 0.005,
    AUDIT: 0.01,
    REQUESTS: 0.003,
}
"""Shares of the bytes that the server promises to all streams; the rest is the reserve."""
OTHERS = tuple(name for name in SHARES if name != RECORDINGS)
DEFAULT_STORAGE_BYTES = 64 << 30
"""Shared out on a foreign server, when no setting says how much it gives."""
EVENT_BYTES = 800 << 10
"""The largest event with its headers; a test makes it. A lower limit would end that recording."""
DEAD_AGE_S = 30 * 86_400
REQUEST_AGE_S = 86_400
"""An Idempotency-Key is remembered for so long."""
SHORTEST_WINDOW_S = 0.1
"""The shortest duplicate window that the server accepts."""


def streams(storage_bytes: int, replicas: int = 1, shards: int = 1) -> tuple[StreamSpec, ...]:
    """Every stream, with its share of `storage_bytes`; the recording streams first, by shard."""

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

    recordings = spec(
        RECORDINGS,
        (ALL_RECORDINGS,),
        "sealed fragments as hosts sent them",
        partitions=PARTITIONS,
        window_s=SHORTEST_WINDOW_S,
    )
    return (
        *(_shard(recordings, shard, shards) for shard in range(shards)),
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
        spec(AUDIT, (AUDIT_CHAIN, AUDIT_HEADS, ALL_GRANTS), "who asked for what, and who allowed it"),
        replace(
            spec(
                REQUESTS,
                (FORMER_REQUESTS, ALL_REQUESTS),
                "which request a key of a caller belongs to",
                keeps="the newest",
            ),
            max_age_s=REQUEST_AGE_S,
        ),
    )


def _shard(whole: StreamSpec, shard: int, shards: int) -> StreamSpec:
    """One of `shards` streams instead of the `whole`. The only one is the whole, to the byte."""
    if shards == 1:
        return whole
    return replace(
        whole,
        name=recording_stream(shard, shards),
        subjects=recording_filters(shard, shards),
        max_bytes=whole.max_bytes // shards,
        shards=shards,
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


async def declare(
    jet: Jet, storage_bytes: int = 0, replicas: int = 1, shards: int = 0
) -> dict[str, list[str]]:
    """Create or change every stream as declared; return the changes by stream. A second call does nothing.

    storage_bytes: the server's promise to all streams; 0: existing streams keep their limits, others share
    DEFAULT_STORAGE_BYTES. shards: 0: as many as there are, or the default of a new installation.
    Raises Misuse (topology.drift, shards.fixed), NoSpace (stream.full, account.streams).
    """
    promised, changes = storage_bytes or DEFAULT_STORAGE_BYTES, {}
    frozen, made = await _freeze(jet, promised, replicas, shards)
    for spec in streams(promised, replicas, frozen):
        wanted = spec if storage_bytes else await _as_large_as_it_is(jet, spec)
        changed = await jet.declare(wanted) or (made if spec.name == RECORDINGS else [])
        if changed:
            changes[spec.name] = changed
    return changes


async def shards_held(jet: Jet) -> int | None:
    """How many recording streams there are; None: a new installation. Raises Misuse (shards.unknown).

    Each of several knows the number: the first one may have been removed by hand.
    """
    for stream in (RECORDINGS, recording_stream(1, PARTITIONS)):
        with suppress(NotFound):
            return shards_of(await jet.info(stream))
    return None


async def _freeze(jet: Jet, promised: int, replicas: int, asked: int) -> tuple[int, list[str]]:
    """The number of shards, for ever, and the changes to the first one. Raises Misuse (shards.fixed).

    Of two callers with two numbers the server lets one create the stream. Both find that one's number.
    """
    account = await jet.account()  # before the look: streams that another caller makes are not counted
    held, made = await shards_held(jet), []
    if held is None:
        new = asked or DEFAULT_SHARDS
        wanted = streams(promised, replicas, new)
        _check_places(account, len(wanted))
        try:
            made = await jet.declare(wanted[0])
            held = new
        except Misuse:
            held = await shards_held(jet)
            if held is None:
                raise
    if asked not in (0, held):
        raise Misuse(
            f"this installation has {held} recording {'stream' if held == 1 else 'streams'}, "
            f"and SHARDS is {asked}: the number is fixed at the first start",
            code="shards.fixed",
            hint=f"unset SHARDS, or set it to {held}",
        )
    return held, made


def _check_places(account: Account, wanted: int) -> None:
    """Raise NoSpace (account.streams) before a number is frozen that the account has no place for."""
    if 0 <= account.max_streams < account.streams + wanted:
        raise NoSpace(
            f"the account on the NATS server has {account.streams} streams (allowed: "
            f"{account.max_streams}); {wanted} more are needed",
            code="account.streams",
            hint="let it have more (max_streams in the server's configuration), or lower SHARDS",
        )


async def _as_large_as_it_is(jet: Jet, spec: StreamSpec) -> StreamSpec:
    try:
        held = await jet.info(spec.name)
    except NotFound:
        return spec
    return replace(spec, max_bytes=held.max_bytes)
