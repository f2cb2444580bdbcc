"""The store of sealed chunks as others use it: put once, read; never replace or remove.

1. The store takes only a chunk that the log knows: its digest is that of a `proven` or `stored` event, or of
   the manifest of a sealed session (a lost file comes back so). A chunk that nobody recorded stands in
   nobody's way, and no chunk is added to a sealed session.
2. Where the session's keys are, the chunk must also open under them.
3. Bytes are written to a file without a name, made durable and read back. Then the file gets its name, unless
   the name is taken. A crash at any line leaves the whole file or none.
4. A chunk that is put while its session is destroyed is removed again. After a crash in between it is
   ciphertext without a key, as every rest of a destroyed session.
"""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

from handlers.format.chunk import open_chunk
from handlers.lifecycle.session import Session
from schemas.config.logs import logger
from schemas.errors import Busy, EvidenceFalse, NotFound, RefusedByState, Unavailable
from schemas.format.chunk_header import HEADER_BYTES, ChunkHeader
from schemas.format.digest import Buffer, Content
from schemas.format.file_names import stored_chunk
from schemas.format.index import Entry
from schemas.ports import NewBlob, OpenBlob
from streams.event_store.proven_chunks import ProvenSessions
from streams.event_store.session_log import SessionLog
from streams.evidence.evidence_store import EvidenceStore
from streams.evidence.session_trees import SessionTrees, existing
from streams.keys.keystore import KeyStore

DIGESTS_KEPT = 10_000
"""Digests of files that were read before; a changed file has another stamp."""
PUTS_MOST = 64
"""Chunks that are taken at once: each is an open file."""
WRITE_BYTES = 1 << 20
"""Pieces are joined to this length before they are written."""
CHECKS_MOST = 4
"""Whole chunks in memory while they are opened."""

log = logger("lucid.chunk_store")


class StoredBlob(NamedTuple):
    """A stored chunk, open for reading. The caller closes `blob`."""

    blob: OpenBlob
    digest: bytes


class Put(NamedTuple):
    """The answer to a put: the chunk is durable under its name."""

    outcome: Literal["created", "exists"]
    digest: bytes


@dataclass(slots=True)
class _Incoming:
    """A chunk that arrives."""

    session: Session
    index: int
    file: NewBlob
    header: ChunkHeader | None = None
    begin: bytes = b""
    size: int = 0


class ChunkStore:
    """The sealed chunks of one installation. Used from one event loop.

    keys: None: this process has no session keys.
    """

    def __init__(
        self,
        log: SessionLog,
        proven: ProvenSessions,
        trees: SessionTrees,
        evidence: EvidenceStore,
        keys: KeyStore | None,
    ) -> None:
        self._log, self._proven, self._trees, self._keys = log, proven, trees, keys
        self._blobs = evidence.chunks
        self._digests: OrderedDict[str, tuple[tuple[int, ...], bytes]] = OrderedDict()
        self.puts = 0
        self._checks = asyncio.Semaphore(CHECKS_MOST)

    async def find(self, session: Session, index: int) -> StoredBlob:
        """The stored chunk. Raises NotFound (chunk.absent), Unavailable (blobs.*)."""
        name = stored_chunk(session.uid, index)
        blob = await asyncio.to_thread(self._blobs.open, name)
        if blob is None:
            raise NotFound(f"the store has no chunk {index} of session {session.id}", code="chunk.absent")
        try:
            return StoredBlob(blob, await self._digest(name, blob))
        except BaseException:
            blob.close()
            raise

    async def entry(self, session: Session, index: int) -> Entry | None:
        """The entry that manifest or events name for a chunk; None: none does, or the chunk is lost."""
        if session.sealed:
            tree = await self._trees.of(session.id)
            entry = tree.entry(index) if index < tree.size else None
        else:
            async with self._proven.of(session) as chunks:
                entry = chunks.entry(index)
        return None if entry is None or entry.lost else entry

    async def put(self, session_id: str, index: int, pieces: AsyncIterator[Buffer]) -> Put:
        """Take a sealed chunk: header ‖ ciphertext ‖ tag. Safe to repeat.

        Raises RefusedByState (chunk.exists: another chunk is stored; chunk.unproven, evidence.destroyed),
        EvidenceFalse (chunk.*), Busy (store.puts), NoSpace, Unavailable.
        """
        if self.puts >= PUTS_MOST:
            raise Busy(f"{PUTS_MOST} chunks are being stored now", code="store.puts", hint="try again later")
        self.puts += 1
        try:
            session = await existing(self._log, session_id)
            file = await asyncio.to_thread(self._blobs.new)
            incoming = _Incoming(session, index, file)
            try:
                return await self._take(incoming, pieces)
            finally:
                await asyncio.to_thread(file.close)
        finally:
            self.puts -= 1

    async def _take(self, incoming: _Incoming, pieces: AsyncIterator[Buffer]) -> Put:
        waiting = bytearray()
        async for piece in pieces:
            _measure(incoming, piece)
            waiting += piece
            if len(waiting) >= WRITE_BYTES:
                await asyncio.to_thread(incoming.file.write, waiting)
                waiting = bytearray()
        await asyncio.to_thread(incoming.file.write, waiting)
        if incoming.header is None or incoming.size != incoming.header.sealed:
            wanted = incoming.header.sealed if incoming.header else HEADER_BYTES
            raise _false(incoming, "length", f"the body ended after {incoming.size} of {wanted} bytes")
        found = await asyncio.to_thread(incoming.file.settle)
        if found.size != incoming.size:
            raise Unavailable(
                f"chunk {incoming.index} has {found.size} bytes on the disk, {incoming.size} were written",
                code="blobs.read_back",
            )
        session = incoming.session
        stored = await self._stored(session, incoming.index)
        if stored is not None:
            return self._same(incoming, stored, found)
        entry = await self.entry(session, incoming.index)
        if entry is None or entry.digest != found.digest:
            raise RefusedByState(
                f"chunk {incoming.index} of {session.id}: neither event nor manifest names these bytes",
                code="chunk.unproven",
                hint="the store takes chunks that the pipeline made, and the lost files of a sealed session",
            )
        return await self._keep(incoming, found)

    async def _keep(self, incoming: _Incoming, found: Content) -> Put:
        session, name = incoming.session, stored_chunk(incoming.session.uid, incoming.index)
        await self._check(incoming)
        outcome = await asyncio.to_thread(incoming.file.keep, name)
        try:
            await existing(self._log, session.id)
        except RefusedByState:
            # Destroyed meanwhile: its folder may have been emptied before this file was there.
            await asyncio.to_thread(self._blobs.remove, name)
            raise
        if outcome == "created":
            log.info("chunk_put", session=session.id, index=incoming.index, bytes=found.size)
            return Put("created", found.digest)
        stored = await self._stored(session, incoming.index)
        if stored is None:
            raise Unavailable(f"chunk {name} vanished while it was stored", code="store.vanished", place=name)
        return self._same(incoming, stored, found)

    async def _check(self, incoming: _Incoming) -> None:
        """Open the chunk under the session's key, if it is here. Raises EvidenceFalse (chunk.*), Denied."""
        if self._keys is None:
            return
        async with self._keys.using(incoming.session.uid, incoming.session.dek_id) as held, self._checks:
            if held is None:
                raise RefusedByState(
                    f"the key of session {incoming.session.id} is erased", code="evidence.destroyed"
                )
            dek = held.keys.dek
            await asyncio.to_thread(lambda: open_chunk(dek, incoming.file.read()))

    async def _stored(self, session: Session, index: int) -> bytes | None:
        """The digest of the chunk that is stored now; None: there is none."""
        try:
            blob, digest = await self.find(session, index)
        except NotFound:
            return None
        blob.close()
        return digest

    def _same(self, incoming: _Incoming, stored: bytes, found: Content) -> Put:
        if stored != found.digest:
            raise RefusedByState(
                f"chunk {incoming.index} of session {incoming.session.id} is stored with other bytes "
                f"({stored.hex()}); a stored chunk is never replaced",
                code="chunk.exists",
            )
        return Put("exists", stored)

    async def _digest(self, name: str, blob: OpenBlob) -> bytes:
        """The digest of a file, read from the disk unless it was read before and has not changed."""
        known = self._digests.get(name)
        if known is not None and known[0] == blob.stamp:
            self._digests.move_to_end(name)
            return known[1]
        digest = (await asyncio.to_thread(blob.content)).digest
        self._digests[name] = blob.stamp, digest
        if len(self._digests) > DIGESTS_KEPT:
            self._digests.popitem(last=False)
        return digest


def _measure(incoming: _Incoming, piece: Buffer) -> None:
    """Count the bytes, and read the header when it is there: a wrong chunk is refused before all of it came.

    Raises EvidenceFalse (chunk.header, chunk.length, chunk.other).
    """
    incoming.size += len(piece)
    if incoming.header is None:
        incoming.begin += bytes(piece[: HEADER_BYTES - len(incoming.begin)])
        if len(incoming.begin) < HEADER_BYTES:
            return
        incoming.header = ChunkHeader.parse(incoming.begin)
        if (incoming.header.uid, incoming.header.index) != (incoming.session.uid, incoming.index):
            raise _false(incoming, "other", "its header names another session or index")
    if incoming.size > incoming.header.sealed:
        raise _false(incoming, "length", f"the body is longer than {incoming.header.sealed} bytes")


def _false(incoming: _Incoming, why: str, message: str) -> EvidenceFalse:
    return EvidenceFalse(
        f"chunk {incoming.index} of session {incoming.session.id} refused: {message}", code=f"chunk.{why}"
    )
