"""Replays a sealed session: makes every chunk again from the recording stream, and compares.

1. The signed manifest decides which bytes are true. The store is repaired, the manifest never changed.
2. A damaged file is quarantined before the right bytes take its name. After a kill between the two the name
   is free, and the next replay fills it; after a kill anywhere else nothing has changed.
3. An unsealed session is not replayed here: its missing chunks are driven again under a new run
   (handlers/lifecycle/next_action.py, Redrive).
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import partial

from handlers.evidence.replay import Judgement, judge
from handlers.seal.index import index_chunks, seal_index_chunk
from handlers.seal.material import Material
from handlers.stages.context import Context
from schemas.errors import RefusedByState, Rejected, Unavailable
from schemas.events.chunk import Recorded
from schemas.format import file_names
from schemas.format.digest import Buffer
from schemas.format.index import Entry
from schemas.format.manifest import Manifest
from schemas.ports import Blobs
from schemas.ports.files import NO_FILE
from streams.event_store.recordings import Recordings
from streams.keys.held_keys import HeldKeys
from streams.pipeline.recompute import Recompute
from streams.scheduling.threads import Threads


@dataclass(frozen=True, slots=True)
class Replayed:
    """One chunk of a replay. quarantined: the new name of the damaged file; empty: there was none."""

    index: int
    outcome: Judgement
    sealed_bytes: int
    quarantined: str = ""


@dataclass(frozen=True, slots=True)
class Replay:
    """Replays one sealed session."""

    recordings: Recordings
    blobs: Blobs
    threads: Threads
    keys: HeldKeys
    manifest: Manifest
    material: Material

    async def run(self) -> AsyncIterator[Replayed]:
        """Every listed chunk in order, without lost ones. A chunk whose source was released is only read.

        Raises RefusedByState (chunk.source_gone): the stream no longer holds the source of a chunk.
        """
        recompute = Recompute(self.recordings, self.threads)
        recorded = {event.index: event for event in self.material.recorded}
        for chunk in self.manifest.chunks:
            if chunk.entry.lost:
                continue
            event = recorded.get(chunk.entry.index)
            if event is None:
                raise RefusedByState(
                    f"the source of chunk {chunk.entry.index} is no longer known", code="chunk.source_gone"
                )
            yield await self._compare(chunk.entry, await self._made(recompute, event))
        made_index = {chunk.index: chunk for chunk in index_chunks(self.material)}
        for item in self.manifest.index:
            chunk_bytes = seal_index_chunk(self.material, self.keys.keys.dek, made_index[item.entry.index])
            yield await self._compare(item.entry, chunk_bytes)

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
        return await self.threads.run(self.material.created.host, partial(self._mend, entry, made))

    def _mend(self, entry: Entry, made: Buffer | None) -> Replayed:
        """In a thread: judge one chunk, and repair it if it is missing or damaged."""
        name = file_names.stored_chunk(self.manifest.uid, entry.index)
        found = self._found(name)
        outcome = judge(entry, self.keys.keys.dek, made, found)
        quarantined = None
        if made is not None and outcome is Judgement.RESTORED:
            quarantined = self.blobs.quarantine(name) if found is not None else None
            self.blobs.put(name, made)
            self._refuse_destroyed(name)
            again = self.blobs.read(name)
            if again is None or judge(entry, self.keys.keys.dek, made, again) is not Judgement.SAME:
                raise Rejected(f"chunk {name} cannot be restored: the store gives back other bytes",
                               code="replay.store", place=name)  # fmt: skip
        return Replayed(entry.index, outcome, entry.sealed, quarantined or "")

    def _found(self, name: str) -> bytes | None:
        """The stored file; empty bytes: its name is no plain file, which counts as damaged."""
        try:
            return self.blobs.read(name)
        except Unavailable as error:
            if error.code != NO_FILE:
                raise
            return b""

    def _refuse_destroyed(self, name: str) -> None:
        """Remove the chunk again if its session was destroyed meanwhile."""
        try:
            self.keys.check()
        except RefusedByState:
            self.blobs.remove(name)
            raise
