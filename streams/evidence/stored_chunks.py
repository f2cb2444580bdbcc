"""Lists the stored chunks of one session and reads their bytes, while it is recorded and after its seal.

1. A sealed session is listed from its manifest, any other from its `stored` events.
2. Lists are remembered: a request reads the events since the last one, or none of a sealed session.
3. Bytes are compared with their digest before they leave; plain bytes leave only from a chunk that opened.
"""

import asyncio
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

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

CHUNKS_KEPT, LISTS_KEPT = 100_000, 1000
"""Some 60 MB."""


@dataclass(frozen=True, slots=True)
class StoredChunk:
    """One data chunk in the store, or a lost one."""

    entry: Entry
    codec: int
    build: str


def index_of(chunk: StoredChunk) -> int:
    return chunk.entry.index


@dataclass(slots=True)
class _List:
    """The chunks of one session by index. position: of its last folded `stored` event."""

    chunks: list[StoredChunk] = field(default_factory=list)
    position: int = 0
    is_sealed: bool = False

    def add(self, chunk: StoredChunk) -> None:
        """Fold one event. A later one of the same chunk replaces it."""
        at = bisect_left(self.chunks, chunk.entry.index, key=index_of)
        if at < len(self.chunks) and self.chunks[at].entry.index == chunk.entry.index:
            self.chunks[at] = chunk
        else:
            self.chunks.insert(at, chunk)


class ChunkLists:
    """The lists of stored chunks that one process remembers, at most CHUNKS_KEPT entries in all."""

    def __init__(self, jet: Reader, store: EvidenceStore) -> None:
        self._jet, self._store = jet, store
        self._lists: OrderedDict[bytes, _List] = OrderedDict()
        """By uid of the session."""

    async def of(self, session: Session) -> "StoredChunks":
        """The stored chunks of a session. Raises EvidenceFalse (manifest.digest), Unavailable."""
        listed = self._lists.get(session.uid)
        if listed is None or listed.is_sealed != session.sealed:
            listed = await self._sealed(session) if session.sealed else _List()
        if not session.sealed:
            await self._read_on(session, listed)
        self._remember(session.uid, listed)
        return StoredChunks(self._store, session, tuple(listed.chunks))

    async def _sealed(self, session: Session) -> _List:
        manifest = await asyncio.to_thread(self._store.manifest, session)
        return _List(
            [StoredChunk(one.entry, one.codec, one.build) for one in manifest.chunks], is_sealed=True
        )

    async def _read_on(self, session: Session, listed: _List) -> None:
        """Fold the events after the list's position."""
        subject = subjects.chunk(subjects.STORED, session.id)
        async for message in self._jet.read_all(subjects.CHUNKS, subject, listed.position + 1):
            event = read_chunk_event(message.data)
            if isinstance(event, Stored) and event.uid == session.uid:
                listed.add(StoredChunk(Entry.parse(event.entry), event.codec, event.build))
            listed.position = max(listed.position, message.seq)  # two requests may fold at once

    def _remember(self, uid: bytes, listed: _List) -> None:
        self._lists[uid] = listed
        self._lists.move_to_end(uid)
        kept = sum(len(one.chunks) for one in self._lists.values())
        while kept > CHUNKS_KEPT or len(self._lists) > LISTS_KEPT:
            _, oldest = self._lists.popitem(last=False)
            kept -= len(oldest.chunks)


class StoredChunks:
    """The chunks of one session, by index, as they are stored now."""

    def __init__(self, store: EvidenceStore, session: Session, chunks: Sequence[StoredChunk]) -> None:
        self._store, self.session, self.chunks = store, session, chunks

    def one(self, index: int) -> StoredChunk:
        """Raises NotFound (chunk.absent)."""
        for chunk in self.since(index)[:1]:
            if chunk.entry.index == index:
                return chunk
        raise NotFound(
            f"session {self.session.id} has no stored chunk {index}",
            code="chunk.absent",
            hint="it may be under way: look again, or list the chunks",
        )

    def present(self, index: int) -> StoredChunk:
        """As `one`, with bytes. Raises NotFound (chunk.absent, chunk.lost)."""
        chunk = self.one(index)
        if chunk.entry.lost:
            raise NotFound(f"chunk {index} was lost and is declared as a gap", code="chunk.lost")
        return chunk

    def since(self, index: int) -> Sequence[StoredChunk]:
        """The chunks from this index on."""
        return self.chunks[bisect_left(self.chunks, index, key=index_of) :]

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
        blob = self._store.chunks.open(name)
        if blob is None:
            raise EvidenceFalse(f"{name} is not there", code="chunk.missing", place=name)
        try:
            # Through the page cache, unlike a read-back: its digest proves every byte, wherever it was.
            sealed = blob.read_at(0, entry.sealed + 1)
        finally:
            blob.close()
        if h(sealed) != entry.digest:
            raise EvidenceFalse(f"{name} does not hold the stored bytes", code="chunk.digest", place=name)
        return sealed
