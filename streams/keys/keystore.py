"""Makes, reads, rotates and erases the data keys of sessions, one key file each
(handlers/crypto/key_file.py).

1. Keys are in memory while they are in use (`hold`, `using`), shared by all users, and LINGER_S longer: the
   stages of a chunk follow each other. At every use the open key file tells whether it still stands.
2. A worker that awaited anything checks again (`HeldKeys.check`) before it publishes: a result made across an
   erasure counts for nothing.
3. `rotate` wraps every key under the newest master key, for a few seconds a call. A newer file stays, so
   several rotations at once end alike. The next rotation completes one that a crash interrupted.
4. Calls that may wait for the disk run in threads of their own: erasing many keys delays no reader. A key
   that was read before is read again on the loop, if that waits for nothing: a thread costs three times as
   much.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from typing import NamedTuple, TypeVar

from handlers.crypto.key_file import build_key_file, open_key_file, read_head
from handlers.crypto.keys import SessionKeys, new_key
from schemas.config.logs import logger
from schemas.errors import Denied, LucidError, NoSpace, Unavailable
from schemas.ports import Erasure, KeyFiles, MasterKeys
from streams.keys.held_keys import HeldKeys, KeysInUse, shredded

READERS, WRITERS = 2, 8
"""Threads. A writer waits for the disk five to ten times, so many of them share the disk."""
READ_KEPT = 10_000
"""Remembered sessions whose key was read: their key files are in the kernel's cache."""
ROTATE_S = 10.0
"""How long one call rotates: far shorter than its caller waits for an answer."""

log = logger("lucid.keys")
T = TypeVar("T")


class Rotated(NamedTuple):
    """The result of a rotation."""

    version: int
    """The master key version that wraps everything now."""
    rewrapped: int
    unproven: int
    """Of the rewrapped: old files that may still be on the disk."""
    refused: tuple[LucidError, ...] = ()
    """The errors of keys that were not rotated."""
    after: bytes = b""
    """The uid after which the next call continues; empty: this call reached the end."""


class KeyStore:
    """Data keys of sessions. One for each process; used from one event loop."""

    def __init__(self, files: KeyFiles, master: MasterKeys) -> None:
        self._files, self._master = files, master
        self._masters: dict[int, bytes] = {}
        self._held = KeysInUse()
        self._read: set[bytes] = set()
        """Sessions whose key was read, at most READ_KEPT."""
        self._readers = ThreadPoolExecutor(READERS, "lucid-keys")
        self._writers = ThreadPoolExecutor(WRITERS, "lucid-erase")

    @asynccontextmanager
    async def using(self, uid: bytes, key_id: bytes = b"") -> AsyncIterator[HeldKeys | None]:
        """As `hold`, until the block ends."""
        held = await self.hold(uid, key_id)
        try:
            yield held
        finally:
            if held is not None:
                self.release(held)

    async def hold(self, uid: bytes, key_id: bytes = b"") -> HeldKeys | None:
        """The keys of a session, in use until `release`; None: the key is erased.

        key_id: the key that the session's log names, if it is known.
        Raises Unavailable (keys.pending): not made yet. Denied (keys.file, keys.kek, keys.other).
        """
        held = self._held.get(uid)
        if held is None or not held.stands():
            self._held.let_go(uid)
            held = await self.open(uid, key_id)
            if held is None:
                return None
            self._held.add(held)
        else:
            _refuse_other(uid, key_id, held.keys)
        held.users += 1
        return held

    def release(self, held: HeldKeys) -> None:
        """End one use of held keys."""
        self._held.release(held)

    async def open(self, uid: bytes, key_id: bytes = b"") -> HeldKeys | None:
        """As `hold`, but shared with nobody; the caller closes it."""
        held = self._open_now(uid, key_id) if uid in self._read else None
        if held is None:
            held = await _run(self._readers, partial(self._open, uid, key_id))
            if len(self._read) >= READ_KEPT:
                self._read.clear()
            self._read.add(uid)
        return held

    async def check(self, held: HeldKeys) -> None:
        """As `HeldKeys.check`, from the event loop."""
        if not held.stands():
            await _run(self._readers, held.check)

    async def make(self, uid: bytes) -> SessionKeys:
        """The session's keys, made now unless they were made before. Safe to repeat.

        Raises RefusedByState (keys.shredded), Denied (keys.file, keys.kek).
        """
        return await _run(self._writers, partial(self._make, uid))

    async def rotate(self, after: bytes = b"", most_s: float = ROTATE_S) -> Rotated:
        """Wrap keys under the newest master key, and erase the older files. Safe to repeat.

        after: `Rotated.after` of the previous call. A key that cannot be rotated stops no other.
        """
        version, master = await asyncio.to_thread(self._master.newest)
        uids = await _run(self._writers, lambda: [uid for uid in self._files.uids() if uid > after])
        waiting = iter(uids)
        end_s = time.monotonic() + most_s
        outcomes: list[Erasure] = []
        failed: dict[bytes, LucidError] = {}
        last = b""

        async def rewrap_one(uid: bytes) -> LucidError | None:
            """None: it is done, or was done before."""
            try:
                outcome = await _run(self._writers, partial(self._rewrap, uid, version, master))
            except LucidError as error:
                return error
            outcomes.extend([outcome] if outcome else [])
            return None

        async def rewrap_waiting() -> None:
            nonlocal last
            # At least one each: a call that begins late still makes progress.
            for uid in waiting:
                last = uid
                if error := await rewrap_one(uid):
                    failed[uid] = error
                if time.monotonic() > end_s:
                    return

        async with asyncio.TaskGroup() as tasks:
            for _ in range(WRITERS):
                tasks.create_task(rewrap_waiting())
        # One by one they may fit on a disk that was too full for many at once: each frees its space again.
        for uid in [uid for uid, error in failed.items() if isinstance(error, NoSpace)]:
            if error := await rewrap_one(uid):
                failed[uid] = error
                break
            del failed[uid]
        for uid, error in failed.items():
            log.error("key_not_rotated", uid=uid.hex(), error=error)
        goes_on = bool(uids) and last != uids[-1]
        done = Rotated(
            version,
            len(outcomes),
            outcomes.count("unproven"),
            tuple(failed.values()),
            last if goes_on else b"",
        )
        log.info("keys_rotated", version=version, rewrapped=done[1], unproven=done[2], through=not goes_on)
        return done

    async def erase(self, uid: bytes, *, was_made: bool = True) -> Erasure:
        """Overwrite the session's key, and prevent that another is made for it. Safe to repeat."""
        outcome = await _run(self._writers, partial(self._files.erase, uid, was_made=was_made))
        self._held.let_go(uid)
        log.info("key_erased", uid=uid.hex(), outcome=outcome)
        return outcome

    def _open(self, uid: bytes, key_id: bytes) -> HeldKeys | None:
        file = self._files.open(uid)
        if file is None:
            raise Unavailable(f"session {uid.hex()} has no key yet", code="keys.pending")
        try:
            if not file.data:
                file.close()
                return None
            keys = SessionKeys(self._unwrapped(uid, file.data))
            _refuse_other(uid, key_id, keys)
        except BaseException:
            file.close()
            raise
        return HeldKeys(self._files, uid, file, keys)

    def _open_now(self, uid: bytes, key_id: bytes) -> HeldKeys | None:
        """As `_open`, without waiting; None: only `_open` can tell."""
        file = self._files.open_now(uid)
        if file is None:
            return None
        try:
            keys = SessionKeys(open_key_file(self._masters, uid, file.data))
            _refuse_other(uid, key_id, keys)
        except Denied:
            file.close()
            return None
        return HeldKeys(self._files, uid, file, keys)

    def _make(self, uid: bytes) -> SessionKeys:
        version, master = self._master.newest()
        made = build_key_file(master, version, uid, new_key())
        # A crash before this leaves nothing, one after it leaves the key for the next try.
        there = self._files.make(uid, made)
        if not there:
            raise shredded(uid)
        if there == made:
            log.info("key_made", uid=uid.hex(), version=version)
        version, master = self._master.newest()
        if read_head(there).master_version < version:
            # A rotation began meanwhile, and may have been past this session already.
            self._rewrap(uid, version, master)
        return SessionKeys(self._unwrapped(uid, there))

    def _rewrap(self, uid: bytes, version: int, master: bytes) -> Erasure | None:
        def rewrapped(raw: bytes) -> bytes | None:
            if read_head(raw).master_version >= version:
                return None
            return build_key_file(master, version, uid, self._unwrapped(uid, raw))

        return self._files.replace(uid, rewrapped)

    def _unwrapped(self, uid: bytes, raw: bytes) -> bytes:
        """The DEK. Versions of the master key never change, but a restored folder may hold others."""
        try:
            return open_key_file(self._masters, uid, raw)
        except Denied:
            self._masters = dict(self._master.keks())
            return open_key_file(self._masters, uid, raw)


async def _run(threads: Executor, call: Callable[[], T]) -> T:
    return await asyncio.get_running_loop().run_in_executor(threads, call)


def _refuse_other(uid: bytes, key_id: bytes, keys: SessionKeys) -> None:
    if key_id and keys.dek_id != key_id:
        raise Denied(
            f"the key file of session {uid.hex()} holds key {keys.dek_id.hex()}, its log names "
            f"{key_id.hex()}",
            code="keys.other",
        )
