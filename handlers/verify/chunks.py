"""Owns the check of what a manifest lists: identity, entries, offsets, tracks, tree and totals, files aside.

1. Nothing is read but the manifest, whose form and order schemas.format.manifest has refused to be wrong.
2. A list that contradicts another stops nothing: it is said, and what follows from it is said too.

Source: format.md §2, §7, §9.
"""

from collections.abc import Iterator

from handlers.format.merkle_tree import Tree
from handlers.stages.record.open_chunk import MAX_FRAGMENTS
from handlers.verify.report import Finding
from schemas.format.chunk_header import HEADER_BYTES, INDEX_TRACK, TAG_BYTES, Codec
from schemas.format.digest import d
from schemas.format.fragment import session_uid
from schemas.format.index import MAX_INDEX_PLAIN, Entry
from schemas.format.manifest import LOST_BUILD, Chunk, Manifest


def entries(manifest: Manifest) -> list[Entry]:
    """Every listed entry, index chunks last."""
    return [listed.entry for listed in (*manifest.chunks, *manifest.index)]


def check_identity(manifest: Manifest) -> Iterator[Finding]:
    """The uid follows from the host, and every genesis from the uid (format.md §2)."""
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
    """Each entry fits the settings, and the one before on its track."""
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
    """The session's codec or none; a lost chunk's form is schemas.format.manifest's to refuse."""
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
    """Tracks are those with a listed fragment or named by the ending (None: it could not be read)."""
    wanted = {chunk.track for chunk in manifest.chunks}
    listed = {track.id for track in manifest.tracks}
    wrong = wanted - listed if named is None else (wanted | named) ^ listed
    for track in sorted(wrong):
        told = "has no fragment, and is listed" if track in listed else "has fragments, and is not listed"
        yield Finding("track.unlisted", f"track {track}", told)


def check_tree(manifest: Manifest) -> Iterator[Finding]:
    """The root follows from the listed entries (format.md §7)."""
    tree = Tree(entry.leaf for entry in entries(manifest))
    if manifest.merkle.tree_size != tree.size:
        told = f"{manifest.merkle.tree_size} leaves, for {tree.size} listed chunks"
        yield Finding("tree.size", "merkle", told)
    if manifest.merkle.root != tree.root:
        yield Finding(
            "tree.root",
            "merkle",
            "the root does not follow from the listed chunks",
            sealed=manifest.merkle.root.hex(),
            found=tree.root.hex(),
        )


def check_totals(manifest: Manifest) -> Iterator[Finding]:
    """Totals are sums over what is listed, lost chunks too."""
    every = entries(manifest)
    sums = {
        "chunks": len(manifest.chunks),
        "index_chunks": len(manifest.index),
        "fragments": sum(chunk.last_seq - chunk.first_seq + 1 for chunk in manifest.chunks),
        "plain": sum(entry.plain for entry in every),
        "sealed": sum(entry.sealed for entry in every),
    }
    for name, found in sums.items():
        said = getattr(manifest.totals, name)
        if said != found:
            yield Finding("totals.false", f"totals.{name}", f"the manifest says {said}, listed are {found}")
