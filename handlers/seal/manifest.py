"""Owns the manifest: what is said and signed of a finished session (format.md §9).

1. Its bytes derive only from the Material and the index entries, so a seal made again is the same seal.
2. The `end` in it names the tracks as they were taken, and is signed by the manifest's own signer: the one in
   the stream, which only marks the place, knew neither.
"""

from collections.abc import Sequence

from handlers.format.fragment import end_fragment
from handlers.format.merkle_tree import Tree
from handlers.seal.gaps import gaps, tracks
from handlers.seal.material import Material
from schemas import ports
from schemas.errors import Denied
from schemas.events.chunk import Ended
from schemas.format import dsse
from schemas.format.digest import ZERO, h
from schemas.format.fragment import TrackTail
from schemas.format.index import Entry
from schemas.format.manifest import (
    LOST_BUILD,
    MAX_EQUIVOCATIONS,
    Chunk,
    EntryFields,
    EquivocationItem,
    Host,
    IndexChunk,
    Lifecycle,
    Manifest,
    Merkle,
    Part,
    SealedSettings,
    Signer,
    Totals,
    TrackGenesis,
)


def seal(
    material: Material, index: Sequence[Entry], signer: ports.Signer, prev_manifest: bytes = ZERO
) -> tuple[Manifest, bytes]:
    """The manifest and its signed envelope. prev_manifest: H of the envelope before; zero for the first.

    Raises Denied (seal.signer): SealStarted names another signer.
    """
    if dsse.fingerprint(signer.public) != material.started.signer:
        raise Denied(
            f"the seal of {material.session.id} was begun by signer {material.started.signer.hex()[:16]}, "
            f"this one is {dsse.fingerprint(signer.public).hex()[:16]}",
            code="seal.signer",
            hint="bring the signer's key back to the keys folder",
        )
    made = manifest(material, index, signer, prev_manifest)
    return made, dsse.build(made.build(), dsse.MANIFEST, signer.sign, signer.public)


def manifest(
    material: Material, index: Sequence[Entry], signer: ports.Signer, prev_manifest: bytes
) -> Manifest:
    """What the envelope carries."""
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
        signer=Signer(key=signer.public, name=signer.name),
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
        merkle=Merkle(tree_size=len(entries), root=Tree(entry.leaf for entry in entries).root),
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
    said = [found for event in material.recorded for found in event.equivocations]
    items = [EquivocationItem(**one.model_dump()) for one in (*said, *material.ended.equivocations)]
    return tuple(items[:MAX_EQUIVOCATIONS])


def _ending(uid: bytes, ended: Ended, signer: ports.Signer) -> bytes:
    """The host's `final` as it is, or the installation's `end`."""
    if ended.end == "final":
        return ended.ending
    tails = [TrackTail.model_validate(track.model_dump()) for track in ended.tracks]
    return end_fragment(uid, ended.end, ended.reason, tails, ended.ended_us, signer)
