"""Owns the check of the sealed chunks as files: there, named, as long, and the very bytes that were sealed.

1. Every listed file is read once, never more than one byte beyond its sealed length.
2. A wrong digest says enough; what the header says is looked at only in bytes that are the sealed ones.

Source: format.md §6, §11, §13.
"""

from collections.abc import Iterator

from handlers.verify.chunks import entries
from handlers.verify.report import Finding, Summary, stray_files
from schemas.errors import Rejected
from schemas.format.chunk_header import HEADER_BYTES, INDEX_TRACK, MAX_SEALED, TAG_BYTES, ChunkHeader
from schemas.format.digest import h
from schemas.format.file_names import copied_chunk
from schemas.format.index import Entry
from schemas.format.manifest import Manifest
from schemas.ports.evidence import Evidence, printable


def check_files(evidence: Evidence, manifest: Manifest, summary: Summary) -> Iterator[Finding]:
    """Every listed chunk is there and unchanged, and no other; counts the good ones in `summary`."""
    listing = evidence.indices()
    yield from stray_files("", evidence.strays())
    yield from stray_files("chunks/", listing.strays)
    for name in sorted(listing.unnamed):
        yield Finding("chunk.unnamed", f"chunks/{printable(name)}", "no chunk has this name")
    listed = {entry.index: entry for entry in entries(manifest) if not entry.lost}
    for index in sorted(listing.numbers - listed.keys()):
        yield Finding("chunk.unnamed", copied_chunk(index), "the manifest lists no such chunk")
    summary.chunks = len(listed)
    codecs = {chunk.index: chunk.codec for chunk in manifest.chunks}
    for entry in listed.values():
        finding = _check_file(evidence, manifest, entry, codecs.get(entry.index))
        if finding is None:
            summary.chunks_good += 1
        else:
            yield finding


def _check_file(evidence: Evidence, manifest: Manifest, entry: Entry, codec: int | None) -> Finding | None:
    where = copied_chunk(entry.index)
    if entry.sealed > MAX_SEALED:
        return Finding("chunk.length", where, f"{entry.sealed} bytes are more than a chunk may have")
    sealed = evidence.chunk(entry.index, entry.sealed)
    if sealed is None:
        return Finding("chunk.missing", where, "is not there")
    if len(sealed) != entry.sealed:
        found = "more" if len(sealed) > entry.sealed else str(len(sealed))
        return Finding("chunk.length", where, f"sealed with {entry.sealed} bytes, found {found}")
    digest = h(sealed)
    if digest != entry.digest:
        return Finding(
            "chunk.digest", where, "is not what was sealed", sealed=entry.digest.hex(), found=digest.hex()
        )
    return _check_header(sealed, manifest, entry, codec)


def _check_header(sealed: bytes, manifest: Manifest, entry: Entry, codec: int | None) -> Finding | None:
    """What the header says is what the manifest says. codec: None for an index chunk."""
    where = copied_chunk(entry.index)
    try:
        header = ChunkHeader.parse(sealed[:HEADER_BYTES])
    except Rejected as error:
        return Finding("chunk.header", where, error.message)
    codecs = {0, manifest.settings.codec} if entry.track == INDEX_TRACK else {codec}
    named = header.names(manifest.uid, entry) and header.dek_id == manifest.dek_id
    if not named or header.suite != manifest.settings.suite or header.codec not in codecs:
        return Finding("chunk.header", where, "its header is of another chunk than the manifest's")
    if header.payload != entry.sealed - HEADER_BYTES - TAG_BYTES:
        return Finding("chunk.header", where, "its header names another payload length")
    return None
