"""Owns the stage `merkle`: one chunk's entry and leaf (format.md §7). The tree is a fold over leaves."""

from handlers.stages.context import Context
from schemas.events.chunk import Encrypted, Proven, Recorded
from schemas.format.chunk_header import ChunkHeader
from schemas.format.index import Entry


def merkle(event: Encrypted, context: Context) -> Proven:
    """Return the event with the entry that the sealed chunk's digest makes."""
    entry = chunk_entry(context.recorded, event.sealed, event.digest)
    return Proven(
        **context.claim(event.run),
        entry=entry.pack(),
        leaf=entry.leaf,
        build=event.build,
        codec=ChunkHeader.parse(event.header).codec,
    )


def chunk_entry(recorded: Recorded, sealed_bytes: int, digest: bytes) -> Entry:
    """The entry of a data chunk: what `recorded` says, and the sealed file's length and digest."""
    return Entry(
        index=recorded.index,
        track=recorded.track,
        part=recorded.part,
        offset=recorded.offset,
        plain=recorded.plain,
        sealed=sealed_bytes,
        first_us=recorded.first_us,
        last_us=recorded.last_us,
        first_seq=recorded.first_seq,
        last_seq=recorded.last_seq,
        prev_head=recorded.prev_head,
        last_head=recorded.last_head,
        digest=digest,
    )
