"""Runs the stages compress, encrypt and merkle on one chunk that comes without a recording. Pure.

1. The bytes are those of the pipeline: same plain bytes, place, settings and key give the same sealed chunk,
   entry and leaf.
2. The place of the chunk is an entry without a file: index, track, part, offset, times, seqs and heads.
"""

from typing import NamedTuple

from handlers.crypto.keys import SessionKeys
from handlers.stages.compress import compress
from handlers.stages.context import Context
from handlers.stages.encrypt import encrypt
from handlers.stages.merkle import merkle
from schemas.errors import EvidenceFalse, Misuse, TooLarge
from schemas.events.chunk import FoldState, Recorded
from schemas.events.session import SessionSettings
from schemas.format.chunk_header import INDEX_TRACK, MAX_PLAIN, Codec
from schemas.format.digest import ZERO, Buffer, h
from schemas.format.index import Entry

NO_HEADER = bytes(96)


class ProcessedChunk(NamedTuple):
    """One chunk after the stages."""

    sealed: bytearray
    entry: Entry
    leaf: bytes
    codec: Codec
    """The codec in use; NONE: compression did not pay."""
    build: str
    payload: int
    plain_digest: bytes


def process(
    plain: Buffer, uid: bytes, place: Entry, settings: SessionSettings, keys: SessionKeys
) -> ProcessedChunk:
    """Return the sealed chunk with its entry and leaf. place: `sealed` and `digest` of it do not count.

    Raises TooLarge (chunk.size), Misuse (chunk.place, compression.level).
    """
    if len(plain) > MAX_PLAIN:
        raise TooLarge(f"a chunk has at most {MAX_PLAIN} bytes, this one {len(plain)}", code="chunk.size")
    recorded = _recorded(uid, place, len(plain))
    context = Context(recorded, 0, settings, keys)
    compressed, payload = compress(0, plain, context)
    encrypted, sealed = encrypt(compressed, payload, context)
    proven = merkle(encrypted, context)
    return ProcessedChunk(
        sealed,
        Entry.parse(proven.entry),
        proven.leaf,
        Codec(proven.codec),
        proven.build,
        compressed.payload,
        h(plain),
    )


def _recorded(uid: bytes, place: Entry, plain: int) -> Recorded:
    """Return the `recorded` event of a chunk at this place. No recording made it: its rows are empty."""
    recorded = Recorded(
        session="",
        uid=uid,
        index=place.index,
        host="",
        track=place.track,
        part=place.part,
        offset=place.offset,
        plain=plain,
        closed_by="final",
        first_seq=place.first_seq,
        last_seq=place.last_seq,
        first_us=place.first_us,
        last_us=place.last_us,
        prev_head=place.prev_head,
        last_head=place.last_head,
        last_header=NO_HEADER,
        rows=b"",
        stream=(),
        state=FoldState(at=0, next_index=place.index + 1, fragments=0, plain=plain, tracks=()),
    )
    if place.track == INDEX_TRACK:
        raise Misuse("an index chunk is made by a seal alone", code="chunk.place")
    try:
        Entry.of(recorded).check()
    except EvidenceFalse as error:
        raise Misuse(error.message, code="chunk.place") from None
    return recorded


def place(index: int = 0, track: int = 0, part: int = 0, offset: int = 0) -> Entry:
    """Return a place without times, seqs and heads."""
    return Entry(index, track, part, offset, 0, 0, 0, 0, 0, 0, ZERO, ZERO, ZERO)
