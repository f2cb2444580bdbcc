"""Seals a session after SealStarted: index chunks, manifest, then Sealed.

    SealStarted → index chunks durable → manifest durable → Sealed

1. Everything derives from events up to SealStarted. After a crash anywhere the same call makes the same
   bytes, finds some of them stored, and goes on.
2. A stored file that authenticates is used as it is: another codec build may have made it. Any other is
   quarantined, but never while an earlier seal names it.
3. A manifest that is durable and not yet Sealed binds nobody: only Sealed makes it the session's.
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from handlers.crypto.signatures import verify_signature
from handlers.lifecycle.session import Session, evolve, initial
from handlers.seal.index import PlainIndexChunk, fits, index_chunks, index_entry, seal_index_chunk
from handlers.seal.manifest import seal
from handlers.seal.material import Material, gather
from schemas import subjects
from schemas.config.logs import logger
from schemas.errors import EvidenceFalse, RefusedByState, Rejected, Unavailable
from schemas.events.chunk import Ended, Recorded, Stored
from schemas.events.session import SealStarted
from schemas.events.upcast import read_chunk_event
from schemas.format import dsse, file_names
from schemas.format.digest import ZERO, h
from schemas.format.index import Entry
from schemas.format.manifest import Manifest
from schemas.ports import Blobs, Reader, Signers, Span
from schemas.ports.telemetry import NO_SPAN
from schemas.telemetry import span_facts
from schemas.telemetry.trace_context import SESSION_KEY
from streams.event_store.chunk_log import recorded_events
from streams.event_store.session_log import SessionLog, read_event
from streams.evidence.evidence_store import EvidenceStore
from streams.keys.keystore import KeyStore

log = logger("lucid.sealing")


@dataclass(frozen=True, slots=True)
class Sealer:
    """Makes seals. Several processes may seal one session at once."""

    jet: Reader
    log: SessionLog
    keys: KeyStore
    evidence: EvidenceStore
    signers: Signers

    async def make(self, session: Session) -> dict[str, object]:
        """Make the index and the manifest of the newest SealStarted durable; return the fields of
        CompleteSeal.

        Safe to repeat. Raises Rejected (seal.*), Denied (seal.signer), Retryable.
        """
        tracer = self.log.tracer
        above = tracer.context(session.uid, SESSION_KEY)
        with tracer.span("seal session", parent=above, key=f"seal.{session.last_seq}") as span:
            span.set({span_facts.SESSION: session.id})
            made = await self._make(session, span)
        await tracer.kept()  # after the seal is in the log, nobody makes it again
        return made

    async def _make(self, session: Session, span: Span) -> dict[str, object]:
        material = await material_of(self.jet, self.log, session, span)
        uid = material.created.uid
        async with self.keys.using(uid, session.dek_id) as held:
            if held is None:
                raise Rejected(f"the key of {session.id} is shredded", code="seal.shredded")
            fields = await asyncio.to_thread(self._seal, material, held.keys.dek)
            try:
                await self.keys.check(held)
            except RefusedByState as error:
                # The session was destroyed, perhaps before the index was there: its folder was empty then.
                await asyncio.to_thread(self.evidence.chunks.remove, f"{uid.hex()}/")
                raise Unavailable(error.message, code=error.code) from error
            return fields

    def _seal(self, material: Material, dek: bytes) -> dict[str, object]:
        """In a thread. Index first, then manifest: a manifest never names a file that is not durable."""
        index = [self._put_index(material, dek, chunk) for chunk in index_chunks(material)]
        started = material.started
        signer = self.signers.of(started.signer) or self.signers.at(started.sealed_us)
        made, envelope = seal(material, index, signer, _previous(material))
        manifest, stored = self._put_manifest(material, made, envelope, index)
        log.info(
            "sealed",
            session=manifest.session,
            seal=manifest.seal_no,
            chunks=manifest.merkle.tree_size,
            root=manifest.merkle.root.hex()[:16],
        )
        return {
            "seal_no": manifest.seal_no,
            "manifest": h(stored),
            "root": manifest.merkle.root,
            "chunks": manifest.merkle.tree_size,
            "plain": manifest.totals.plain,
            "sealed": manifest.totals.sealed,
        }

    def _put_index(self, material: Material, dek: bytes, chunk: PlainIndexChunk) -> Entry:
        name = file_names.stored_chunk(material.created.uid, chunk.index)
        sealed = seal_index_chunk(material, dek, chunk)
        for _ in range(2):
            self.evidence.chunks.put(name, sealed)
            found = self.evidence.chunks.read(name)
            if found is not None and fits(material, dek, chunk, found):
                return index_entry(chunk, found)
            if found is not None:
                self._quarantine(self.evidence.chunks, name, material)
        raise Unavailable(f"index chunk {name} cannot be read back", code="seal.read_back", place=name)

    def _put_manifest(
        self, material: Material, made: Manifest, envelope: bytes, index: Sequence[Entry]
    ) -> tuple[Manifest, bytes]:
        name = file_names.stored_manifest(material.created.uid, made.seal_no)
        for _ in range(2):
            self.evidence.manifests.put(name, envelope)
            found = self.evidence.manifests.read(name)
            if found is not None and (found == envelope or self._is_ours(material, index, found)):
                return Manifest.within(dsse.parse(found, dsse.MANIFEST)), found
            if found is not None:
                self._quarantine(self.evidence.manifests, name, material)
        raise Unavailable(f"manifest {name} cannot be read back", code="seal.read_back", place=name)

    def _is_ours(self, material: Material, index: Sequence[Entry], found: bytes) -> bool:
        """Whether a stored manifest is of this seal: another version of this program may have made it."""
        try:
            envelope = dsse.parse(found, dsse.MANIFEST)
            manifest = Manifest.within(envelope)
        except EvidenceFalse:
            return False
        entries = [*material.entries, *index]
        return (
            verify_signature(manifest.signer.key, envelope.signed, envelope.sig)
            and dsse.fingerprint(manifest.signer.key) == material.started.signer
            and (manifest.uid, manifest.seal_no) == (material.created.uid, material.started.seal_no)
            and manifest.lifecycle.digest == material.history_digest
            and [item.entry for item in (*manifest.chunks, *manifest.index)] == entries
        )

    def _quarantine(self, blobs: Blobs, name: str, material: Material) -> None:
        if material.session.sealed:
            raise Rejected(
                f"{name} is not what this seal would make, and an earlier seal names it",
                code="seal.conflict",
                place=name,
            )
        log.error("quarantined", name=name, kept=blobs.quarantine(name))


async def material_of(jet: Reader, log: SessionLog, session: Session, span: Span = NO_SPAN) -> Material:
    """Gather the material of the newest seal: history, recorded chunks, stored chunks, end.

    span: links the traces of the first chunks.

    Raises Rejected (seal.incomplete, seal.contradiction), RefusedByState (chunk.source_gone).
    """
    history, then = _up_to_seal(session.id, await log.history(session.id))
    recorded: list[Recorded] = []
    ended: Ended | None = None
    async for event in recorded_events(jet, session.id):
        if isinstance(event, Recorded):
            recorded.append(event)
        else:
            ended = event
    assert then.seal_started is not None
    if session.sealed and len(recorded) < then.seal_started.n:
        raise RefusedByState(
            f"the source of {session.id} is gone: its chunks were read back after sealing, and their "
            "source was purged",
            code="chunk.source_gone",
            hint=f"nothing can be made again; lucid verify {session.id} says whether it is still true",
        )
    if ended is None:
        raise Rejected(f"the recording of {session.id} has not ended", code="seal.incomplete")
    stored: list[tuple[int, Stored]] = []
    async for message in jet.read_all(subjects.CHUNKS, subjects.chunk(subjects.STORED, session.id)):
        with suppress(Rejected):  # malformed: if it stood for a chunk, that chunk would be missing
            one = read_chunk_event(message.data)
            if isinstance(one, Stored):
                stored.append((message.seq, one))
                span.link(message.headers.get("traceparent", ""))
    return gather(then, history, recorded, stored, ended)


def _up_to_seal(session_id: str, lines: Sequence[bytes]) -> tuple[list[bytes], Session]:
    """The history's lines up to the newest SealStarted, and the session as it was then."""
    events = [read_event(line) for line in lines]
    begun = [number for number, event in enumerate(events, 1) if isinstance(event, SealStarted)]
    if not begun:
        raise Rejected(f"no seal of {session_id} has begun", code="seal.incomplete")
    session = initial(session_id)
    for number, event in enumerate(events[: begun[-1]], 1):
        session = evolve(session, event, number)
    return list(lines[: begun[-1]]), session


def _previous(material: Material) -> bytes:
    return material.session.seals[-1].manifest if material.session.seals else ZERO
