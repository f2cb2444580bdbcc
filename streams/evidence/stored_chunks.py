"""Lists the stored chunks of one session and reads their bytes, while it is recorded and after its seal.

1. A sealed session is listed from its manifest, any other from its `stored` events.
2. Bytes are compared with their digest before they leave; plain bytes leave only from a chunk that opened.
"""

import asyncio
from dataclasses import dataclass

from handlers.crypto.keys import SessionKeys
from handlers.format.chunk import open_plain
from handlers.lifecycle.session import Session
from schemas import subjects
from schemas.errors import EvidenceFalse, NotFound
from schemas.events.chunk import Stored
from schemas.events.upcast import read_chunk_event
from schemas.format.digest import h
from schemas.format.file_names import stored_chunk
from schemas.format.fragment import MAIN
from schemas.format.index import Entry
from schemas.ports import Reader
from streams.evidence.evidence_store import EvidenceStore


@dataclass(frozen=True, slots=True)
class StoredChunk:
    """One data chunk in the store, or a lost one."""

    entry: Entry
    codec: int
    build: str


class StoredChunks:
    """The chunks of one session, by index, as they are stored now."""

    def __init__(self, store: EvidenceStore, session: Session, chunks: list[StoredChunk]) -> None:
        self._store, self.session, self.chunks = store, session, chunks

    def one(self, index: int) -> StoredChunk:
        """Raises NotFound (chunk.absent)."""
        for chunk in self.chunks:
            if chunk.entry.index == index:
                return chunk
        raise NotFound(
            f"session {self.session.id} has no stored chunk {index}",
            code="chunk.absent",
            hint="it may be under way: look again, or list the chunks",
        )

    def of_track(self, track: int = MAIN) -> list[StoredChunk]:
        """The chunks with bytes of one track, up to the first one that is not stored yet; lost ones left out.

        So a recording that grows is read from its begin without a hole that fills later.
        """
        found = []
        for index, chunk in enumerate(self.chunks):
            if chunk.entry.index != index:
                break
            if chunk.entry.track == track and chunk.entry.plain and not chunk.entry.lost:
                found.append(chunk)
        return found

    async def sealed(self, chunk: StoredChunk) -> bytes:
        """The sealed bytes of one chunk. Raises EvidenceFalse (chunk.missing, chunk.digest)."""
        return await asyncio.to_thread(self._read, chunk)

    async def plain(self, chunk: StoredChunk, keys: SessionKeys) -> bytes:
        """The plain bytes of one chunk. Raises as `sealed`, and EvidenceFalse (chunk.*)."""
        return await asyncio.to_thread(lambda: open_plain(keys.dek, self._read(chunk)))

    def _read(self, chunk: StoredChunk) -> bytes:
        entry = chunk.entry
        name = stored_chunk(self.session.uid, entry.index)
        if entry.lost:
            raise NotFound(f"chunk {entry.index} was lost and is declared as a gap", code="chunk.lost")
        sealed = self._store.chunks.read(name)
        if sealed is None:
            raise EvidenceFalse(f"{name} is not there", code="chunk.missing", place=name)
        if h(sealed) != entry.digest:
            raise EvidenceFalse(f"{name} does not hold the stored bytes", code="chunk.digest", place=name)
        return sealed


async def stored_chunks(jet: Reader, store: EvidenceStore, session: Session) -> StoredChunks:
    """The stored chunks of a session. Raises EvidenceFalse (manifest.digest), Unavailable."""
    if session.sealed:
        manifest = await asyncio.to_thread(store.manifest, session)
        listed = [StoredChunk(chunk.entry, chunk.codec, chunk.build) for chunk in manifest.chunks]
        return StoredChunks(store, session, listed)
    found: dict[int, StoredChunk] = {}
    async for message in jet.read_all(subjects.CHUNKS, subjects.chunk(subjects.STORED, session.id)):
        event = read_chunk_event(message.data)
        if isinstance(event, Stored) and event.uid == session.uid:
            found[event.index] = StoredChunk(Entry.parse(event.entry), event.codec, event.build)
    return StoredChunks(store, session, [found[index] for index in sorted(found)])
