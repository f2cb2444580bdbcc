"""Builds and seals the index chunks: every row of a session, cut and sealed like any chunk (format.md §8).

1. Rows have one order: each chunk's row with its fragments' rows, then key frames, then metadata.
2. The same material and the same codec build give the same bytes. A file that another build made holds the
   same rows and is used as it is, if it passes `fits`.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from handlers.format.chunk import ChunkFields, open_plain, read_header, seal_chunk
from handlers.format.compression import compress
from handlers.seal.material import Material
from schemas.errors import EvidenceFalse
from schemas.format.chunk_header import INDEX_TRACK, Codec, Suite
from schemas.format.digest import ZERO, Buffer, h
from schemas.format.fragment import KEY_FRAME
from schemas.format.index import Entry, KeyFrameRow, MetadataRow, cut, pack_row


@dataclass(frozen=True, slots=True)
class PlainIndexChunk:
    """One index chunk before it is sealed."""

    index: int
    offset: int
    plain: bytes


def index_chunks(material: Material) -> Iterator[PlainIndexChunk]:
    """Yield the session's index chunks, numbered on after the last data chunk."""
    offset = 0
    for number, plain in enumerate(cut(_rows(material)), start=material.started.n):
        yield PlainIndexChunk(number, offset, plain)
        offset += len(plain)


def seal_index_chunk(material: Material, dek: bytes, chunk: PlainIndexChunk) -> bytes:
    """Return the whole file of one index chunk. Pure."""
    settings = material.created.settings
    made = compress(chunk.plain, Codec(settings.codec), settings.level, settings.threshold)
    return bytes(seal_chunk(Suite(settings.suite), dek, _fields(material, chunk, made.codec), made.payload))


def fits(material: Material, dek: bytes, chunk: PlainIndexChunk, sealed: Buffer) -> bool:
    """Return whether a file that exists authenticates as this index chunk and holds its rows."""
    try:
        header, created = read_header(sealed), material.created
        named = (
            header.names(created.uid, index_entry(chunk, sealed)) and header.suite == created.settings.suite
        )
        return named and open_plain(dek, sealed) == chunk.plain
    except EvidenceFalse:
        return False


def index_entry(chunk: PlainIndexChunk, sealed: Buffer) -> Entry:
    """Return the entry of an index chunk, from its whole file."""
    return Entry(
        index=chunk.index,
        track=INDEX_TRACK,
        part=0,
        offset=chunk.offset,
        plain=len(chunk.plain),
        sealed=len(sealed),
        first_us=0,
        last_us=0,
        first_seq=0,
        last_seq=0,
        prev_head=ZERO,
        last_head=ZERO,
        digest=h(sealed),
    )


def _fields(material: Material, chunk: PlainIndexChunk, codec: Codec) -> ChunkFields:
    return ChunkFields(
        uid=material.created.uid,
        index=chunk.index,
        track=INDEX_TRACK,
        part=0,
        offset=chunk.offset,
        codec=codec,
        plain=len(chunk.plain),
    )


def _rows(material: Material) -> Iterator[bytes]:
    for entry, rows in zip(material.entries, material.rows, strict=True):
        yield pack_row(entry)
        for row in rows:
            yield row.pack()
    for entry, rows in zip(material.entries, material.rows, strict=True):
        offset = entry.offset
        for row in rows:
            if row.flags & KEY_FRAME:
                yield KeyFrameRow(entry.track, row.time_us, entry.index, offset).pack()
            offset += row.plain
    yield MetadataRow({}).pack()  # no personal field is asked for
