"""Proves one session again: manifests, history, stored files, and the fragments of its source.

1. A sealed session is proven against the digests in its log; a running one against its `stored` events.
2. A damaged file is made again from its source, by the functions that made it, while the source is there. The
   repair is written down before it begins (scrub_progress.py).
3. Fragments are compared with their rows in `recorded`. A fragment that retention purged is no finding.
4. Before anything counts as damaged, the log is read again: a destroyed session has no findings.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, TypeVar

from handlers.crypto.signatures import verify_signature
from handlers.evidence.proof import MISSING, check_fragments, check_history
from handlers.evidence.replay import Judgement
from handlers.lifecycle.session import Session
from handlers.stages.context import Context
from handlers.verify.chunks import check_tree
from schemas import subjects
from schemas.errors import EvidenceFalse, NoSpace, RefusedByState, Rejected, Unavailable
from schemas.events.chunk import Recorded, Stored
from schemas.events.scrub import Outcome
from schemas.events.upcast import read_chunk_event
from schemas.format import dsse, file_names
from schemas.format.digest import h
from schemas.format.index import Entry
from schemas.format.manifest import Manifest
from schemas.ports import Jet
from schemas.ports.files import NO_FILE
from schemas.telemetry.span_facts import OUTCOME
from streams.event_store.chunk_log import recorded_events, stream_seqs
from streams.event_store.recordings import Recordings
from streams.event_store.session_log import SessionLog
from streams.evidence.evidence_store import EvidenceStore
from streams.evidence.proof_spans import ReplaySpans
from streams.evidence.repair import Repair
from streams.evidence.replay import Replay
from streams.evidence.scrub_pace import ScrubPace
from streams.evidence.sealing import material_of
from streams.keys.keystore import KeyStore
from streams.pipeline.recompute import Recompute
from streams.scheduling.threads import Threads

SOURCE = "source of chunk "
"""Its alarms end with the source."""
OF_THE_DISK = "blobs."
"""How the codes of the store begin."""
T = TypeVar("T")


class Fault(NamedTuple):
    """One thing that is not as it was sealed or recorded."""

    place: str
    code: str
    text: str
    outcome: Outcome


class Checked(NamedTuple):
    """One look. files, fragments: how many it took; fault None: all were good at `place`.

    gone: the session has no other source than the one that was looked at. source: that of all chunks below
    this one was checked; 0: no source was.
    """

    files: int
    fragments: int
    size: int
    fault: Fault | None = None
    place: str = ""
    messages: int = 0
    gone: bool = False
    source: int = 0


@dataclass(frozen=True, slots=True)
class SessionProof:
    """The checks of one scrub. disk: a thread of its own. intend: writes down that a repair begins."""

    log: SessionLog
    recordings: Recordings
    evidence: EvidenceStore
    keys: KeyStore
    pace: ScrubPace
    threads: Threads
    disk: Executor
    intend: Callable[[str, Fault], Awaitable[None]]

    @property
    def _jet(self) -> Jet:
        return self.recordings.jet

    async def sealed(self, session: Session, first: int, source: int) -> AsyncIterator[Checked]:
        """Check a sealed session.

        first: files of its newest seal that were checked before. source: as of Checked, before.
        """
        lines = await self.log.history(session.id)
        manifest: Manifest | None = None
        for seal in session.seals:
            fault: Fault | None = None
            size, place = 0, f"manifest {seal.seal_no}"
            try:
                found, size = await self._off_loop(partial(self._manifest, session, seal.seal_no))
                check_history(found, lines)
                manifest = found
            except (Rejected, Unavailable) as error:
                # Only the disk is asked here: a bad sector stops no pass.
                fault = Fault(place, error.code, error.message, "alarm")
            await self.pace.spend(size)
            if fault is not None and not await self._stands(session):
                return
            yield Checked(0, 0, size, fault, place)
        if manifest is None or manifest.seal_no != session.seals[-1].seal_no:
            return
        entries = [item.entry for item in (*manifest.chunks, *manifest.index)]
        async for checked in self._files(session, entries[first:], source):
            yield checked

    async def running(self, session: Session) -> AsyncIterator[Checked]:
        """Check the files that a session without a seal has stored so far, and its source."""
        entries: dict[int, Entry] = {}
        stored = subjects.chunk(subjects.STORED, session.id)
        async for message in self._jet.read_all(subjects.CHUNKS, stored):
            with suppress(Rejected):  # of a stranger, under this name
                event = read_chunk_event(message.data)
                if isinstance(event, Stored) and event.uid == session.uid:
                    entries[event.index] = Entry.parse(event.entry)
        async for checked in self._files(session, [entry for _, entry in sorted(entries.items())]):
            yield checked

    # manifests

    def _manifest(self, session: Session, seal_no: int) -> tuple[Manifest, int]:
        """In a thread: one manifest, checked by itself, and its length. Raises EvidenceFalse."""
        seal = next(one for one in session.seals if one.seal_no == seal_no)
        envelope = self.evidence.manifests.read(file_names.stored_manifest(session.uid, seal_no))
        if envelope is None or h(envelope) != seal.manifest:
            text = "is not there" if envelope is None else "is not the one that was sealed"
            raise EvidenceFalse(f"manifest {seal_no} of {session.id} {text}", code="manifest.digest")
        parsed = dsse.parse(envelope, dsse.MANIFEST)
        manifest = Manifest.within(parsed)
        if not verify_signature(manifest.signer.key, parsed.signed, parsed.sig):
            raise EvidenceFalse(
                f"manifest {seal_no} of {session.id} is not signed", code="manifest.signature"
            )
        for finding in check_tree(manifest):
            raise EvidenceFalse(f"manifest {seal_no} of {session.id}: {finding.message}", code=finding.code)
        return manifest, len(envelope)

    # files

    async def _files(
        self, session: Session, entries: Iterable[Entry], source: int = 0
    ) -> AsyncIterator[Checked]:
        """Check the files of a session, and then its source, until it is destroyed."""
        for entry in entries:
            place = f"chunk {entry.index}"
            if entry.lost:
                yield Checked(1, 0, 0, None, place)
                continue
            fault = await self._file(session, entry)
            if fault is not None and not await self._stands(session):
                return
            yield Checked(1, 0, entry.sealed, fault, place)
        async for checked in self._source(session, source):
            yield checked

    async def _file(self, session: Session, entry: Entry) -> Fault | None:
        """Check one stored file; repair it if it can be."""
        await self.pace.spend(entry.sealed)
        name, place = file_names.stored_chunk(session.uid, entry.index), f"chunk {entry.index}"
        content, damaged = None, Fault(place, "chunk.missing", "is not there", "alarm")
        try:
            content = await self._off_loop(lambda: self.evidence.chunks.content(name))
        except Unavailable as error:
            if error.code != NO_FILE:  # a sector that cannot be read: its file is as good as gone
                damaged = Fault(place, error.code, error.message, "alarm")
        if content is not None:
            if (content.size, content.digest) == (entry.sealed, entry.digest):
                return None
            damaged = Fault(place, "chunk.digest", "is not what was sealed", "alarm")
        if not await self._stands(session):
            return damaged  # the caller finds that it is destroyed
        await self.intend(session.id, damaged)
        try:
            judgement, moved = await self._repaired(session, entry)
        except (Rejected, NoSpace, Unavailable) as error:
            # A bad or full disk lasts, and the next pass tries again. Without the stream this one does.
            if isinstance(error, Unavailable) and not error.code.startswith(OF_THE_DISK):
                raise
            return damaged._replace(text=f"{damaged.text}; it cannot be made again: {error.message}")
        if judgement is Judgement.RESTORED:
            kept = f"; the damaged file is quarantine/{moved}" if moved else ""
            text = f"{damaged.text}; restored from its source{kept}"
            return damaged._replace(text=text, outcome="repaired")
        if judgement.good:
            return None  # another process was first, or the disk gives it back
        return damaged._replace(text=f"{damaged.text}; its source does not give the sealed bytes")

    async def _repaired(self, session: Session, entry: Entry) -> tuple[Judgement, str]:
        """Raises Rejected: the source or the key is gone, or the store gives back other bytes."""
        async with self.keys.using(session.uid, session.dek_id) as held:
            if held is None:
                raise RefusedByState("its key is erased", code="keys.shredded")
            if session.sealed:
                manifest = await self._off_loop(lambda: self.evidence.manifest(session))
                material = await material_of(self._jet, self.log, session)
                chunks = self.evidence.chunks
                spans = await ReplaySpans.of(self._jet, session)
                replay = Replay(self.recordings, chunks, self.threads, held, manifest, material, spans)
                done = await replay.one(entry)
                return done.outcome, done.quarantined
            assert session.created is not None
            recorded = await self._recorded(session, entry.index)
            context = Context(recorded, 0, session.created.settings, held.keys)
            repair = Repair(self.evidence.chunks, self.threads, held, session.uid, session.created.host)
            spans = await ReplaySpans.of(self._jet, session)
            with spans.of_chunk(entry) as span:
                made = (await Recompute(self.recordings, self.threads).sealed(0, context))[1]
                outcome, quarantined = await repair.compare(entry, made)
                span.set({OUTCOME: outcome.value})
            return outcome, quarantined

    async def _recorded(self, session: Session, index: int) -> Recorded:
        async for event in recorded_events(self._jet, session.id):
            if isinstance(event, Recorded) and event.index == index:
                return event
        raise RefusedByState(f"the source of chunk {index} is no longer known", code="chunk.source_gone")

    # fragments

    async def _source(self, session: Session, source: int) -> AsyncIterator[Checked]:
        """Check the recorded fragments of a session from a chunk on, if its source is kept."""
        if await self.recordings.is_recorded(session.id):
            wanted = 0
            async for event in recorded_events(self._jet, session.id):
                if not isinstance(event, Recorded) or event.uid != session.uid:
                    continue
                if event.index < source:
                    wanted = event.index + 1
                    continue
                checked = await self._fragments(session, event)
                is_hole = 0 < wanted < event.index and checked.fault is None
                if is_hole and not await self._released(session, event.index):
                    text = f"the events of chunks {wanted} to {event.index - 1} are missing"
                    fault = Fault(checked.place, "events.missing", text, "alarm")
                    checked = checked._replace(fault=fault)
                wanted = event.index + 1
                yield checked._replace(source=wanted)
        yield Checked(0, 0, 0, gone=True)

    async def _fragments(self, session: Session, event: Recorded) -> Checked:
        """Check the fragments of one chunk."""
        seqs, place = stream_seqs(event), f"{SOURCE}{event.index}"
        await self.pace.spend(event.plain)
        found = await self.recordings.get_many(session.id, seqs)
        bad = await self._off_loop(partial(check_fragments, event, seqs, found))
        if bad:
            bad = await self._kept(session, bad)
        fault = None
        if bad:
            seq, code = bad[0]
            text = (
                f"{len(bad)} of {len(seqs)} fragments cannot be read as recorded; the first is message {seq}"
            )
            fault = Fault(place, code, text, "alarm")
        return Checked(0, len(seqs), sum(len(one.data) for one in found.values()), fault, place)

    async def _kept(self, session: Session, bad: list[tuple[int, str]]) -> list[tuple[int, str]]:
        """Without those that retention has purged, or the destruction of the session."""
        fresh = await self.log.load(session.id)
        if _is_gone(fresh) or not await self.recordings.is_recorded(session.id):
            return []
        return [(seq, code) for seq, code in bad if code != MISSING or seq > fresh.released_to]

    async def _released(self, session: Session, index: int) -> bool:
        """Whether retention has purged the events before this chunk, or the session is destroyed."""
        fresh = await self.log.load(session.id)
        return _is_gone(fresh) or index <= fresh.released_chunks or fresh.sealed != session.sealed

    async def _stands(self, session: Session) -> bool:
        """Whether the session is still to be kept."""
        return not _is_gone(await self.log.load(session.id))

    async def _off_loop(self, work: Callable[[], T]) -> T:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self.disk, self.pace.measured, work)


def _is_gone(session: Session) -> bool:
    return session.created is None or session.destroy is not None or session.shredded is not None
