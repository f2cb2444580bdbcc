"""Owns the stage `store`'s decision: is what was read back the sealed chunk that was proven?

Rules
1. `stored` is said only of bytes that were read back; its entry is recomputed from them.
2. What exists already and authenticates wins, even if another codec build made other bytes of it.
3. What exists and does not authenticate is quarantined by the caller, never overwritten.
"""

from enum import Enum, auto

from handlers.chunks import open_plain, read_header
from handlers.stages.context import Context
from handlers.stages.merkle import chunk_entry
from schemas.chunk_events import Proven, Stored
from schemas.digest import Buffer, h
from schemas.errors import Rejected
from schemas.index import Entry


class Found(Enum):
    """What the store holds under the chunk's name."""

    SAME = auto()
    OTHER_BUILD = auto()
    FALSE = auto()


def store(event: Proven, read_back: Buffer, context: Context) -> tuple[Found, Stored]:
    """Return what was found and the event that may be said of it (not of Found.FALSE).

    read_back: the whole file, as the store gave it back.
    """
    digest = h(read_back)
    entry = chunk_entry(context.recorded, len(read_back), digest)
    found, codec, build = Found.SAME, event.codec, event.build
    if digest != Entry.parse(event.entry).digest:
        found, codec, build = _judge(read_back, context)
    return found, Stored(
        **context.claim(event.run), entry=entry.pack(), leaf=entry.leaf, build=build, codec=codec
    )


def _judge(read_back: Buffer, context: Context) -> tuple[Found, int, str]:
    recorded = context.recorded
    try:
        header = read_header(read_back)
        open_plain(context.keys.dek, read_back)
    except Rejected:
        return Found.FALSE, 0, "unknown"
    found = (header.uid, header.index, header.track, header.part, header.offset, header.plain)
    wanted = (recorded.uid, recorded.index, recorded.track, recorded.part, recorded.offset, recorded.plain)
    return (Found.OTHER_BUILD if found == wanted else Found.FALSE), header.codec, "other"
