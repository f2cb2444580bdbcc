"""The stage `store`: decides whether the bytes read back are the proven chunk.

1. A `stored` event is only about bytes that were read back; its entry is recomputed from them.
2. An existing file that authenticates wins, even if another codec build made other bytes.
3. An existing file that does not authenticate is never overwritten: the caller moves it to the quarantine.
"""

from handlers.format.chunk import open_plain, read_header
from handlers.format.merkle_tree import leaf
from handlers.stages.context import Context
from schemas.errors import Rejected
from schemas.events.chunk import Proven, Stored
from schemas.format.digest import Buffer, Content, h
from schemas.format.index import Entry


def store(event: Proven, read_back: Content, context: Context) -> Stored | None:
    """Return the event of the proven chunk; None: the store holds another file.

    read_back: length and digest of the file that the store holds under the chunk's name.
    """
    if read_back.digest != Entry.parse(event.entry).digest:
        return None
    return _stored(event.run, read_back, context, event.codec, event.build)


def keep(run: int, read_back: Buffer, context: Context) -> Stored | None:
    """Return the event of the same chunk from another codec build; None: the file is no such chunk.

    read_back: the whole file.
    """
    try:
        header = read_header(read_back)
        open_plain(context.keys.dek, read_back)
    except Rejected:
        return None
    if not header.names(context.recorded.uid, context.recorded):
        return None
    return _stored(run, Content(len(read_back), h(read_back)), context, header.codec, "other")


def _stored(run: int, read_back: Content, context: Context, codec: int, build: str) -> Stored:
    entry = Entry.of(context.recorded, *read_back).pack()
    return Stored(**context.claim(run), entry=entry, leaf=leaf(entry), build=build, codec=codec)
