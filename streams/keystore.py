"""Owns the data keys of all sessions, wrapped, in KEYS: making, reading, rotating, and erasing for good.

    lucid.key.<uid>     wrap (, newer wrap …)     or     fence

1. A key is made once: its wrap is appended expecting an empty subject. After a crash the next try finds it.
2. `rotate` appends the new wrap expecting the one it read, then erases the older: a crash between leaves two
   wraps of one key, and the next rotation erases the older one.
3. `fence` is appended before anything is erased. Without it a late writer, expecting an empty subject, would
   make the session a key again. It stays for ever.
4. What is known of a key is forgotten when its subject moves, and after CACHE_S in any case.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

from handlers.keys import SessionKeys, dek_id, kek_version, new_key, unwrap, wrap
from schemas import subjects
from schemas.errors import Conflict, Denied, RefusedByState, Rejected, Unavailable
from schemas.jcs import jcs
from schemas.jetstream import Message
from schemas.key_events import KeyFenced, KeyWrapped, read_key_event
from schemas.ports import Jet, MasterKeys
from streams.checkpoints import patiently

CACHE_S = 60.0
TRIES = 20

log = logging.getLogger("lucid.keys")


class Rotated(NamedTuple):
    """What a rotation did."""

    version: int
    """The master key version that wraps everything now."""
    rewrapped: int
    erased: int


class _Cached(NamedTuple):
    keys: SessionKeys | None
    read_s: float


class KeyStore:
    """Data keys of sessions. One for each process; used from one event loop."""

    def __init__(
        self, jet: Jet, master: MasterKeys, erasing: Callable[[], AbstractContextManager[None]] = nullcontext
    ) -> None:
        """erasing: entered around every erasure, to leave nothing of it where the server's files lie."""
        self._jet, self._master, self._erasing = jet, master, erasing
        self._cache: dict[bytes, _Cached] = {}

    async def run(self) -> None:
        """Forget cached keys whose subjects move, until cancelled."""
        last = (await patiently(lambda: self._jet.info(subjects.KEYS))).last_seq
        self._cache.clear()
        async for item in self._jet.follow(subjects.KEYS, [subjects.ALL_KEYS], last + 1):
            if isinstance(item, Message):
                self._cache.pop(_uid_of(item), None)
            else:
                self._cache.clear()

    async def session_keys(self, uid: bytes, key_id: bytes = b"") -> SessionKeys | None:
        """The keys of a session; None: they are shredded. key_id: what its log says of them, if it is known.

        Raises Unavailable (keys.absent): not made yet. Denied (keys.wrap, keys.kek, keys.other).
        """
        cached = self._cache.get(uid)
        if cached is None or time.monotonic() - cached.read_s > CACHE_S:
            began_s = time.monotonic()
            cached = _Cached(await self._read_keys(uid), began_s)
            self._cache[uid] = cached
        if cached.keys is not None and key_id and cached.keys.dek_id != key_id:
            raise Denied(
                f"KEYS holds key {cached.keys.dek_id.hex()} for session {uid.hex()}, its log names "
                f"{key_id.hex()}",
                code="keys.other",
            )
        return cached.keys

    async def make(self, uid: bytes) -> SessionKeys:
        """The session's keys, made now unless they were made before. Safe to repeat.

        Raises RefusedByState (keys.shredded).
        """
        for _ in range(TRIES):
            last = await self._jet.last(subjects.KEYS, subjects.key(uid))
            if last is not None:
                keys = await self._open(last)
                if keys is None:
                    raise RefusedByState(f"the key of session {uid.hex()} is shredded", code="keys.shredded")
                return keys
            dek = new_key()
            version, kek = await asyncio.to_thread(self._master.newest)
            try:
                # A crash before this append leaves nothing, one after it leaves the key for the next try.
                await self._jet.append(subjects.key(uid), _wrapped(uid, dek, version, kek), 0)
            except Conflict:
                continue  # another made it, or our ack was lost: what stands there is the key
            log.info("key_made uid=%s version=%d", uid.hex(), version)
            return SessionKeys(dek)
        raise Unavailable(f"KEYS does not show what it holds of {uid.hex()}", code="keys.lagging")

    async def rotate(self) -> Rotated:
        """Bring every key under the newest master key, and erase the older wraps. Safe to repeat.

        Raises Denied or Rejected when some key could not be; all the others are done then.
        """
        version, kek = await asyncio.to_thread(self._master.newest)
        rewrapped = erased = 0
        refused: list[Rejected] = []
        uids = {_uid_of(message) async for message in self._jet.read_all(subjects.KEYS, subjects.ALL_KEYS)}
        for uid in sorted(uids - {b""}):
            try:
                rewrapped += await self._rewrap(uid, version, kek)
                erased += await self._erase_older(uid)
            except Rejected as error:
                log.error("key_not_rotated uid=%s error=%s", uid.hex(), error)
                refused.append(error)
        log.info("keys_rotated version=%d rewrapped=%d erased=%d", version, rewrapped, erased)
        if refused:
            raise refused[0]
        return Rotated(version, rewrapped, erased)

    async def fence(self, uid: bytes) -> None:
        """Make sure that no key can be made for this session again. Safe to repeat."""
        body = jcs(KeyFenced(uid=uid).model_dump(mode="json"))
        for _ in range(TRIES):
            last = await self._jet.last(subjects.KEYS, subjects.key(uid))
            if last is not None and isinstance(read_key_event(last.data), KeyFenced):
                self._cache.pop(uid, None)
                return
            try:
                await self._jet.append(subjects.key(uid), body, last.seq if last else 0)
            except Conflict:
                continue
        raise Unavailable(f"the fence of {uid.hex()} could not be set", code="keys.lagging")

    async def erase(self, uid: bytes) -> int:
        """Overwrite every wrap of a fenced session; how many. Safe to repeat.

        Raises RefusedByState (keys.unfenced).
        """
        last = await self._jet.last(subjects.KEYS, subjects.key(uid))
        if last is None or not isinstance(read_key_event(last.data), KeyFenced):
            raise RefusedByState(f"session {uid.hex()} has no fence", code="keys.unfenced")
        self._cache.pop(uid, None)
        return await self._erase_older(uid)

    async def _held(self, uid: bytes) -> list[Message]:
        return [message async for message in self._jet.read_all(subjects.KEYS, subjects.key(uid))]

    async def _read_keys(self, uid: bytes) -> SessionKeys | None:
        last = await self._jet.last(subjects.KEYS, subjects.key(uid))
        if last is None:
            raise Unavailable(f"session {uid.hex()} has no key yet", code="keys.absent")
        return await self._open(last)

    async def _open(self, message: Message) -> SessionKeys | None:
        event = read_key_event(message.data)
        if isinstance(event, KeyFenced):
            return None
        keks = await asyncio.to_thread(self._master.keks)
        return SessionKeys(unwrap(keks, event.uid, event.dek_id, event.wrap))

    async def _rewrap(self, uid: bytes, version: int, kek: bytes) -> int:
        for _ in range(TRIES):
            last = await self._jet.last(subjects.KEYS, subjects.key(uid))
            event = read_key_event(last.data) if last else None
            if last is None or not isinstance(event, KeyWrapped) or kek_version(event.wrap) == version:
                return 0
            keys = await self._open(last)
            assert keys is not None
            try:
                await self._jet.append(subjects.key(uid), _wrapped(uid, keys.dek, version, kek), last.seq)
            except Conflict:
                continue  # a fence, or our lost ack: look again
            return 1
        raise Unavailable(f"the key of {uid.hex()} could not be rewrapped", code="keys.lagging")

    async def _erase_older(self, uid: bytes) -> int:
        """Erase all but the last message of the subject.

        Only what stands before the last one as the leader knows it: a lagging read must not take a newer one.
        """
        last = await self._jet.last(subjects.KEYS, subjects.key(uid))
        older = [message.seq for message in await self._held(uid) if last and message.seq < last.seq]
        with self._erasing() if older else nullcontext():
            return sum([await self._jet.delete(subjects.KEYS, seq) for seq in older])


def _wrapped(uid: bytes, dek: bytes, version: int, kek: bytes) -> bytes:
    name = dek_id(dek)
    event = KeyWrapped(uid=uid, dek_id=name, wrap=wrap(kek, version, uid, name, dek))
    return jcs(event.model_dump(mode="json"))


def _uid_of(message: Message) -> bytes:
    """Whose key it is; empty: nobody's, and such a message must not end whoever follows KEYS."""
    try:
        return bytes.fromhex(message.subject.rsplit(".", 1)[1])
    except ValueError:
        return b""
