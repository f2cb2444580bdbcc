"""Replays a sealed session: makes every chunk again from the recording stream, and compares.

1. The signed manifest decides which bytes are true. The store is repaired, the manifest never changed.
2. A damaged file is replaced as repair.py says. A kill anywhere has changed nothing for the worse.
3. An unsealed session is not replayed here: its missing chunks are driven again under a new run
   (handlers/lifecycle/next_action.py, Redrive).
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import cached_property

from handlers.evidence.replay import Judgement
from handlers.seal.index import PlainIndexChunk, index_chunks, seal_index_chunk
from handlers.seal.material import Material
from handlers.stages.context import Context
from schemas.errors import RefusedByState
from schemas.events.chunk import Recorded
from schemas.format.chunk_header import INDEX_TRACK
from schemas.format.digest import Buffer
from schemas.format.index import Entry
from schemas.format.manifest import Manifest
from schemas.ports import Blobs
from schemas.telemetry.span_facts import OUTCOME
from streams.event_store.recordings import Recordings
from streams.evidence.proof_spans import ReplaySpans
from streams.evidence.repair import Repair
from streams.keys.held_keys import HeldKeys
from streams.pipeline.recompute import Recompute
from streams.scheduling.threads import Threads

NO_SPANS = ReplaySpans()


@dataclass(frozen=True, slots=True)
class Replayed:
    """One chunk of a replay. quarantined: the new name of the damaged file; empty: there was none."""

    index: int
    outcome: Judgement
    sealed_bytes: int
    quarantined: str = ""


@dataclass(frozen=True)
class Replay:
    """Replays one sealed session."""

    recordings: Recordings
    blobs: Blobs
    threads: Threads
    keys: HeldKeys
    manifest: Manifest
    material: Material
    spans: ReplaySpans = NO_SPANS

    async def run(self) -> AsyncIterator[Replayed]:
        """Every listed chunk in order, without lost ones. A chunk with a released source is only read.

        Raises RefusedByState (chunk.source_gone): the stream no longer holds the source of a chunk.
        """
        for item in (*self.manifest.chunks, *self.manifest.index):
            if not item.entry.lost:
                yield await self.one(item.entry)

    async def one(self, entry: Entry) -> Replayed:
        """One listed chunk that is not lost. Raises as `run`."""
        with self.spans.of_chunk(entry) as span:
            done = await self._one(entry)
            span.set({OUTCOME: done.outcome.value})
            return done

    async def _one(self, entry: Entry) -> Replayed:
        if entry.track == INDEX_TRACK:
            made = seal_index_chunk(self.material, self.keys.keys.dek, self._index[entry.index])
            return await self._compare(entry, made)
        event = self._recorded.get(entry.index)
        if event is None:
            raise RefusedByState(
                f"the source of chunk {entry.index} is no longer known", code="chunk.source_gone"
            )
        recompute = Recompute(self.recordings, self.threads)
        return await self._compare(entry, await self._made(recompute, event))

    @cached_property
    def _recorded(self) -> dict[int, Recorded]:
        return {event.index: event for event in self.material.recorded}

    @cached_property
    def _index(self) -> dict[int, PlainIndexChunk]:
        return {chunk.index: chunk for chunk in index_chunks(self.material)}

    async def _made(self, recompute: Recompute, event: Recorded) -> Buffer | None:
        """The sealed chunk; None: its source was released while the session ran."""
        context = Context(event, 0, self.material.created.settings, self.keys.keys)
        try:
            return (await recompute.sealed(0, context))[1]
        except RefusedByState:
            if event.index < self.material.session.released_chunks:
                return None
            raise

    async def _compare(self, entry: Entry, made: Buffer | None) -> Replayed:
        blobs, threads, keys = self.blobs, self.threads, self.keys
        repair = Repair(blobs, threads, keys, self.manifest.uid, self.material.created.host)
        outcome, quarantined = await repair.compare(entry, made)
        return Replayed(entry.index, outcome, entry.sealed, quarantined)
