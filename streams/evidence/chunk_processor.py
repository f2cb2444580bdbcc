"""Processes single chunks in the pool: those that stand alone, and those of a session that come again.

1. A chunk that stands alone is sealed under its caller's key, or under a new one that only the answer holds.
2. Under a session's own key nothing is sealed but the chunk that its log names: the service seals no other
   bytes, so nobody can make evidence with it. A lost file is made again so.
3. Keys and bytes are never logged.
"""

import base64
import binascii
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

from handlers.crypto.keys import SessionKeys, new_key
from handlers.crypto.primitives import KEY_BYTES, random_bytes
from handlers.format.compression import check_cost
from handlers.stages.standalone import ProcessedChunk, process
from schemas.api.chunks import OF_SESSION, ChunkParameters
from schemas.config.settings import Settings
from schemas.errors import Misuse, RefusedByState, TooLarge
from schemas.events.session import SessionSettings
from schemas.format.chunk_header import Codec
from schemas.format.digest import Buffer
from schemas.format.index import Entry
from streams.event_store.session_log import SessionLog
from streams.evidence.chunk_store import ChunkStore
from streams.evidence.session_trees import existing
from streams.keys.keystore import KeyStore
from streams.pipeline.chunk_pool import ChunkPool

UID_BYTES = 16

ReadPlain = Callable[[], Buffer]
"""Returns the plain bytes. It is called in a thread of the pool."""


class Made(NamedTuple):
    """One processed chunk and its circumstances."""

    chunk: ProcessedChunk
    uid: bytes
    suite: int
    key_id: bytes
    session_id: str = ""
    new_key: bytes = b""
    """The key that was made for it."""
    is_stored: bool = False


@dataclass(frozen=True, slots=True)
class ChunkProcessor:
    """One for each process; used from one event loop."""

    pool: ChunkPool
    store: ChunkStore
    log: SessionLog
    keys: KeyStore
    settings: Settings

    @property
    def max_chunk_bytes(self) -> int:
        return self.settings.max_chunk_bytes

    async def process(
        self, caller: str, read: ReadPlain, asked: ChunkParameters, key: str | None = None
    ) -> Made:
        """Process one chunk at the caller's turn. key: base64.

        Raises Misuse (chunk.data, chunk.key, chunk.parameters, chunk.place, compression.*), TooLarge
        (chunk.size), Busy (queue.full), Unavailable (processor.timeout), and of a session's chunk
        RefusedByState (chunk.unproven) and the errors of ChunkStore.put.
        """
        if asked.session is not None:
            return await self._again(caller, read, asked, asked.session, key)
        if asked.store:
            raise Misuse("a chunk is stored for a session", code="chunk.parameters", hint="name the session")
        settings, dek = self._chosen(asked), new_key() if key is None else _key(key)
        uid = random_bytes(UID_BYTES) if asked.uid is None else bytes.fromhex(asked.uid)
        keys = SessionKeys(dek)
        chunk = await self.pool.run(
            caller, lambda: process(self._checked(read, settings), uid, _place(asked), settings, keys)
        )
        return Made(chunk, uid, settings.suite, keys.dek_id, new_key=b"" if key is not None else dek)

    async def _again(
        self, caller: str, read: ReadPlain, asked: ChunkParameters, session_id: str, key: str | None
    ) -> Made:
        """Make a chunk of a session again. Raises RefusedByState (chunk.unproven)."""
        more = asked.model_fields_set - OF_SESSION - {"data", "key"}
        if more or key is not None:
            raise Misuse(
                "a chunk of a session has the session's own settings and key: leave out "
                f"{', '.join(sorted(more)) or 'key'}",
                code="chunk.parameters",
            )
        session = await existing(self.log, session_id)
        entry = await self.store.entry(session, asked.index)
        if entry is None or session.created is None:
            raise _unproven(session_id, asked.index, "no event names it yet")
        settings, uid = session.created.settings, session.uid
        async with self.keys.using(uid, session.dek_id) as held:
            if held is None:
                raise RefusedByState(f"the key of session {session_id} is erased", code="evidence.destroyed")
            keys = held.keys
            chunk = await self.pool.run(
                caller, lambda: process(self._checked(read, settings), uid, entry, settings, keys)
            )
            await self.keys.check(held)
        if chunk.entry != entry:
            raise _unproven(session_id, asked.index, "these bytes, or this codec build, give another chunk")
        if asked.store:
            await self.store.put(session_id, asked.index, _one(chunk.sealed))
        return Made(chunk, uid, settings.suite, keys.dek_id, session_id, is_stored=asked.store)

    def _chosen(self, asked: ChunkParameters) -> SessionSettings:
        """The settings of this chunk; all that it leaves out is as in a new session. Raises Misuse."""
        defaults = self.settings
        if asked.codec is not None and asked.codec != defaults.codec:
            defaults = replace(defaults, codec=asked.codec, level=None)
        if asked.level is not None:
            defaults = replace(defaults, level=asked.level)
        if asked.suite is not None:
            defaults = replace(defaults, suite=asked.suite)
        if asked.threshold is not None:
            defaults = replace(defaults, threshold=asked.threshold)
        return defaults.session()

    def _checked(self, read: ReadPlain, settings: SessionSettings) -> Buffer:
        """In a thread. Raises TooLarge (chunk.size), Misuse (compression.*)."""
        plain = read()
        if len(plain) > self.max_chunk_bytes:
            raise TooLarge(
                f"a chunk has at most {self.max_chunk_bytes} bytes, this one {len(plain)}",
                code="chunk.size",
                hint="cut it; LUCID_MAX_CHUNK_SIZE is the bound of this installation",
            )
        check_cost(Codec(settings.codec), settings.level, len(plain), self.settings.compression_max_s)
        return plain


def of_base64(text: str) -> bytes:
    """Return the bytes of padded base64. Raises Misuse (chunk.data)."""
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise Misuse("`data` is not padded base64", code="chunk.data", place="data") from None


def _key(text: str) -> bytes:
    """Raises Misuse (chunk.key). The message never holds the key."""
    try:
        key = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != KEY_BYTES:
        raise Misuse(f"a key is {KEY_BYTES} bytes as padded base64", code="chunk.key", place="key")
    return key


def _place(asked: ChunkParameters) -> Entry:
    return Entry(
        index=asked.index,
        track=asked.track,
        part=asked.part,
        offset=asked.offset,
        plain=0,
        sealed=0,
        first_us=asked.first_us,
        last_us=asked.last_us,
        first_seq=asked.first_seq,
        last_seq=asked.last_seq,
        prev_head=bytes.fromhex(asked.prev_head),
        last_head=bytes.fromhex(asked.last_head),
        digest=bytes(32),
    )


def _unproven(session_id: str, index: int, why: str) -> RefusedByState:
    return RefusedByState(
        f"chunk {index} of session {session_id} is not made: {why}",
        code="chunk.unproven",
        hint="a chunk of a session is made again from exactly its plain bytes",
    )


async def _one(sealed: bytearray) -> AsyncIterator[Buffer]:
    yield sealed
