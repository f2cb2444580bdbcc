"""Checks the chunks: what the manifest lists of them, and their files.

1. The first half reads the manifest alone: identity, entries, offsets, tracks, tree, totals. schemas.format
   has checked its form and order already.
2. The second half reads each listed file once, at most one byte beyond its sealed length: it is there, it has
   its name and length, and it holds the sealed bytes. Only sealed bytes have their header read.
3. A contradiction ends no check: each one, and each that follows from it, is a finding.

Source: format.md §2, §6, §7, §9, §11, §13.
"""

from collections.abc import Iterator

from handlers.format.merkle_tree import Tree, leaf
from handlers.stages.record.open_chunk import MAX_FRAGMENTS
from handlers.verify.report import Finding, Summary, stray_files
from schemas.errors import Rejected
from schemas.format.chunk_header import HEADER_BYTES, INDEX_TRACK, MAX_SEALED, TAG_BYTES, ChunkHeader, Codec
from schemas.format.digest import d, h
from schemas.format.file_names import copied_chunk
from schemas.format.fragment import session_uid
from schemas.format.index import MAX_INDEX_PLAIN, Entry
from schemas.format.manifest import LOST_BUILD, Chunk, Manifest
from schemas.ports.evidence import Evidence, printable


def entries(manifest: Manifest) -> list[Entry]:
    """Return every listed entry, index chunks last."""
    return [listed.entry for listed in (*manifest.chunks, *manifest.index)]


def check_identity(manifest: Manifest) -> Iterator[Finding]:
    """Check that the uid follows from the host, and every genesis from the uid (format.md §2)."""
    host = manifest.host
    if session_uid(host.key, host.counter) != manifest.uid:
        yield Finding("host.uid", "manifest", "the uid is not that of this host and counter")
    counter = host.counter.to_bytes(8, "little")
    for track in manifest.tracks:
        named = manifest.uid + track.id.to_bytes(2, "little") + host.key + counter
        made = d("lucid v1 genesis", named + host.prev_genesis + host.intake)
        if made != track.genesis:
            yield Finding(
                "host.genesis",
                f"track {track.id}",
                "the genesis does not follow from the session",
                sealed=track.genesis.hex(),
                found=made.hex(),
            )


def check_entries(manifest: Manifest) -> Iterator[Finding]:
    """Check each entry against the settings, and against the entry before it on its track."""
    offsets: dict[int, int] = {}
    for entry in entries(manifest):
        place = f"chunk {entry.index}"
        before = offsets.get(entry.track, 0)
        if entry.offset != before:
            yield Finding("chunk.offset", place, f"begins at {entry.offset}, the one before ends at {before}")
        offsets[entry.track] = entry.offset + entry.plain
        if entry.last_seq - entry.first_seq >= MAX_FRAGMENTS:
            yield Finding("chunk.entry", place, f"holds more than {MAX_FRAGMENTS} fragments")
        if entry.track == INDEX_TRACK and not 0 < entry.plain <= MAX_INDEX_PLAIN:
            yield Finding("chunk.entry", place, f"is an index chunk of {entry.plain} bytes")
    for chunk in manifest.chunks:
        yield from _check_codec(manifest, chunk)
    if not manifest.index:
        yield Finding("chunk.entry", "index", "there is no index chunk")


def _check_codec(manifest: Manifest, chunk: Chunk) -> Iterator[Finding]:
    """Check that the codec is the session's or none. schemas.format.manifest checks a lost chunk's form."""
    place = f"chunk {chunk.index}"
    if chunk.codec not in (Codec.NONE, manifest.settings.codec):
        yield Finding("chunk.entry", place, f"codec {chunk.codec} is not the session's")
    if chunk.entry.lost:
        return
    if chunk.build == LOST_BUILD:
        yield Finding("chunk.entry", place, "has the build of a lost chunk")
    if Codec(chunk.codec) is Codec.NONE and chunk.sealed != HEADER_BYTES + chunk.plain + TAG_BYTES:
        yield Finding("chunk.entry", place, "is stored raw, and its lengths differ")


def check_tracks(manifest: Manifest, named: set[int] | None) -> Iterator[Finding]:
    """Check that the listed tracks have a fragment, or stand in the ending (None: it could not be read)."""
    wanted = {chunk.track for chunk in manifest.chunks}
    listed = {track.id for track in manifest.tracks}
    wrong = wanted - listed if named is None else (wanted | named) ^ listed
    for track in sorted(wrong):
        text = "has no fragment, and is listed" if track in listed else "has fragments, and is not listed"
        yield Finding("track.unlisted", f"track {track}", text)


def check_tree(manifest: Manifest) -> Iterator[Finding]:
    """Check that the root follows from the listed entries (format.md §7)."""
    tree = Tree(leaf(entry.pack()) for entry in entries(manifest))
    if manifest.merkle.tree_size != tree.size:
        text = f"{manifest.merkle.tree_size} leaves, for {tree.size} listed chunks"
        yield Finding("tree.size", "merkle", text)
    if manifest.merkle.root != tree.root:
        yield Finding(
            "tree.root",
            "merkle",
            "the root does not follow from the listed chunks",
            sealed=manifest.merkle.root.hex(),
            found=tree.root.hex(),
        )


def check_totals(manifest: Manifest) -> Iterator[Finding]:
    """Check that totals are sums over the listed chunks, lost ones included."""
    every = entries(manifest)
    sums = {
        "chunks": len(manifest.chunks),
        "index_chunks": len(manifest.index),
        "fragments": sum(chunk.last_seq - chunk.first_seq + 1 for chunk in manifest.chunks),
        "plain": sum(entry.plain for entry in every),
        "sealed": sum(entry.sealed for entry in every),
    }
    for name, found in sums.items():
        stated = getattr(manifest.totals, name)
        if stated != found:
            yield Finding("totals.false", f"totals.{name}", f"the manifest says {stated}, listed are {found}")


def check_files(evidence: Evidence, manifest: Manifest, summary: Summary) -> Iterator[Finding]:
    """Check that every listed chunk is there and unchanged, and no other; count the good ones."""
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
    """Compare the header with the manifest. codec: None for an index chunk."""
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
