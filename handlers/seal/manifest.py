"""Builds the manifest of a finished session, and signs it (format.md §9).

1. Its bytes derive only from the Material and the index entries, so a seal made again is the same seal.
2. The `end` in it names the tracks as they were recorded, and the manifest's own signer signs it. The `end`
   in the stream only marks the place: its writer knew neither.
3. Of missing fragments each hole is one gap, and each lost chunk is one gap of its own.
4. `after` of a gap is the fragment with last_seq + 1; it is absent if none was stored.
5. The host declared a gap if a gap fragment stands right behind it; otherwise the installation did.
"""

from collections.abc import Iterator, Sequence

from handlers.format.fragment import end_fragment
from handlers.format.merkle_tree import Tree, leaf
from handlers.seal.material import Material
from schemas.errors import Denied
from schemas.events.chunk import Ended
from schemas.format import dsse
from schemas.format.digest import ZERO, h
from schemas.format.fragment import FinalBody, Kind, TrackTail, parse
from schemas.format.fragment_bodies import GapBody
from schemas.format.index import Entry, FragmentRow
from schemas.format.manifest import (
    LOST_BUILD,
    MAX_EQUIVOCATIONS,
    Chunk,
    EntryFields,
    EquivocationItem,
    Gap,
    Host,
    IndexChunk,
    Lifecycle,
    Manifest,
    Merkle,
    Part,
    SealedSettings,
    SealSigner,
    SignedHead,
    Totals,
    TrackGenesis,
)
from schemas.ports import Signer


def seal(
    material: Material, index: Sequence[Entry], signer: Signer, prev_manifest: bytes = ZERO
) -> tuple[Manifest, bytes]:
    """Return the manifest and its signed envelope.

    prev_manifest: H of the envelope before; zero for the first.
    Raises Denied (seal.signer): SealStarted names another signer.
    """
    if dsse.fingerprint(signer.public) != material.started.signer:
        raise Denied(
            f"the seal of {material.session.id} was begun by signer {material.started.signer.hex()[:16]}, "
            f"this one is {dsse.fingerprint(signer.public).hex()[:16]}",
            code="seal.signer",
            hint="put that signer's key back into the keys folder",
        )
    made = manifest(material, index, signer, prev_manifest)
    return made, dsse.build(made.build(), dsse.MANIFEST, signer.sign, signer.public)


def manifest(material: Material, index: Sequence[Entry], signer: Signer, prev_manifest: bytes) -> Manifest:
    """Return the manifest, without its envelope."""
    created, ended = material.created, material.ended
    entries = [*material.entries, *index]
    return Manifest(
        seal_no=material.started.seal_no,
        prev_manifest=prev_manifest,
        session=created.session,
        uid=created.uid,
        dek_id=material.session.dek_id,
        settings=SealedSettings(**created.settings.model_dump(exclude={"threshold"})),
        host=Host(
            name=created.host,
            key=created.host_key,
            counter=created.counter,
            prev_genesis=created.prev_genesis,
            intake=h(material.session.intake),
            attested=False,
        ),
        signer=SealSigner(key=signer.public, name=signer.name),
        started_us=material.session.started_us,
        ended_us=ended.ended_us,
        sealed_us=material.started.sealed_us,
        end=ended.end,
        reason=ended.reason,
        lifecycle=Lifecycle(last=len(material.history), digest=material.history_digest),
        tracks=tuple(TrackGenesis(id=t, genesis=ended.genesis[t]) for t in sorted(tracks(material))),  # type: ignore[arg-type]
        ending=_ending(created.uid, ended, signer),
        parts=_parts(material),
        chunks=tuple(_chunk(material, number) for number in range(len(material.entries))),
        gaps=tuple(gaps(material)),
        equivocations=_equivocations(material),
        merkle=Merkle(tree_size=len(entries), root=Tree(leaf(entry.pack()) for entry in entries).root),
        totals=Totals(
            chunks=len(material.entries),
            index_chunks=len(index),
            fragments=sum(len(rows) for rows in material.rows),
            plain=sum(entry.plain for entry in entries),
            sealed=sum(entry.sealed for entry in entries),
        ),
        index=tuple(IndexChunk(**EntryFields.members(entry)) for entry in index),
    )


def _chunk(material: Material, number: int) -> Chunk:
    entry, event, last = material.entries[number], material.recorded[number], material.rows[number][-1]
    stored = material.stored.get(number)
    return Chunk(
        **EntryFields.members(entry),
        codec=stored.codec if stored else 0,  # type: ignore[arg-type]  # Chunk refuses another
        build=stored.build if stored else LOST_BUILD,
        header=event.last_header,
        body_digest=last.body_digest,
        signature=last.signature,
    )


def _parts(material: Material) -> tuple[Part, ...]:
    found = {(event.track, event.part): event.part_fragment for event in material.recorded}
    return tuple(
        Part(track=track, part=part, fragment=fragment)  # type: ignore[arg-type]  # Part refuses another
        for (track, part), fragment in sorted(found.items())
    )


def _equivocations(material: Material) -> tuple[EquivocationItem, ...]:
    recorded = [one for event in material.recorded for one in event.equivocations]
    items = [EquivocationItem(**one.model_dump()) for one in (*recorded, *material.ended.equivocations)]
    return tuple(items[:MAX_EQUIVOCATIONS])


def _ending(uid: bytes, ended: Ended, signer: Signer) -> bytes:
    """Return the host's `final` as it is, or the installation's `end`."""
    if ended.end == "final":
        return ended.ending
    tails = [TrackTail.model_validate(track.model_dump()) for track in ended.tracks]
    return end_fragment(uid, ended.end, ended.reason, tails, ended.ended_us, signer)


MISSING = "missing"
"""Reason of a hole that no host declared."""

Placed = tuple[Entry, Sequence[FragmentRow]]


def gaps(material: Material) -> list[Gap]:
    """Return every gap, in order of (track, first_seq)."""
    tails: dict[int, TrackTail] = {tail.id: tail for tail in final_tails(material.ended)}
    found: list[Gap] = []
    for track in sorted(tracks(material)):
        placed = [
            (entry, rows)
            for entry, rows in zip(material.entries, material.rows, strict=True)
            if entry.track == track
        ]
        found.extend(_of_track(material, material.ended.genesis[track], placed, tails.get(track)))
    return sorted(found, key=lambda gap: (gap.track, gap.first_seq))


def tracks(material: Material) -> set[int]:
    """Return the tracks with a stored fragment, or named by `final`."""
    named = {tail.id for tail in final_tails(material.ended)}
    return {entry.track for entry in material.entries} | named


def final_tails(ended: Ended) -> tuple[TrackTail, ...]:
    """Return the track tails of `final`; none for an `end`, which repeats the chunks."""
    return FinalBody.parse(parse(ended.ending).body).tracks if ended.end == "final" else ()


def _of_track(
    material: Material, genesis: bytes, placed: Sequence[Placed], tail: TrackTail | None
) -> Iterator[Gap]:
    seq, head, part = 0, genesis, 0
    for number, (entry, rows) in enumerate(placed):
        if entry.first_seq > seq:
            yield _gap(
                (entry.track, part, seq, entry.first_seq - 1, head, entry.prev_head),
                _declared(rows[0]),
                _first(material, entry, rows),
            )
        if entry.lost:
            following = placed[number + 1] if number + 1 < len(placed) else None
            follows = following is not None and following[0].first_seq == entry.last_seq + 1
            yield _gap(
                (entry.track, entry.part, entry.first_seq, entry.last_seq, entry.prev_head, entry.last_head),
                ("installation", material.session.losses[entry.index]),
                _first(material, *following) if following is not None and follows else None,
            )
        seq, head, part = entry.last_seq + 1, entry.last_head, entry.part
    if tail is not None and tail.last_seq >= seq:
        yield _gap((tail.id, part, seq, tail.last_seq, head, tail.head), ("installation", MISSING), None)


def _gap(
    hole: tuple[int, int, int, int, bytes, bytes], declared: tuple[str, str], after: SignedHead | None
) -> Gap:
    """hole: track, part, first and last seq, head before, previous head after."""
    track, part, first_seq, last_seq, head_before, prev_head_after = hole
    by, reason = declared
    return Gap(
        track=track,  # type: ignore[arg-type]  # Gap refuses another
        part=part,
        first_seq=first_seq,
        last_seq=last_seq,
        head_before=head_before,
        prev_head_after=prev_head_after,
        by=by,  # type: ignore[arg-type]
        reason=reason,
        after=after,
    )


def _first(material: Material, entry: Entry, rows: Sequence[FragmentRow]) -> SignedHead:
    """Return the first fragment of a chunk, as the host signed it."""
    row = rows[0]
    header = row.header(material.created.uid, entry.track, entry.part, entry.first_seq, entry.prev_head)
    return SignedHead(header=header.pack(), body_digest=row.body_digest, signature=row.signature)


def _declared(after: FragmentRow) -> tuple[str, str]:
    if after.kind is Kind.GAP:
        return "host", GapBody.parse(after.body).reason
    return "installation", MISSING
