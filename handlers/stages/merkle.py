"""The stage `merkle`: makes entry and leaf of one chunk (format.md §7). The seal builds the tree."""

from handlers.format.merkle_tree import leaf
from handlers.stages.context import Context
from schemas.events.chunk import Encrypted, Proven
from schemas.format.chunk_header import ChunkHeader
from schemas.format.index import Entry


def merkle(event: Encrypted, context: Context) -> Proven:
    """Return the event with the entry of the sealed chunk."""
    entry = Entry.of(context.recorded, event.sealed, event.digest).pack()
    return Proven(
        **context.claim(event.run),
        entry=entry,
        leaf=leaf(entry),
        build=event.build,
        codec=ChunkHeader.parse(event.header).codec,
    )
