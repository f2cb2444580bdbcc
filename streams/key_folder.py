"""Proves at each start that `keys/` and the log belong together, and makes the first keys of an installation.

    keys/installation, master key, root, signer   →   KeysNoted in the log   →   keys/joined
    a key file is made   →   KeyMade in the log   →   the session names its key
    ErasureOrdered in the log   →   the key file is erased   →   at the next start: keys/erased

1. Each step is durable before the next. A crash before KeysNoted leaves a log that knows no keys: the next
   start makes what is missing. A crash after it leaves a folder that the log names: the next start joins it.
2. A role calls `open` before it serves anything; whatever makes or lists keys later calls `check` before.
3. A folder that was put back from an older copy holds keys that were erased since. `open` erases all that the
   log names from `keys/erased` on, before anything is served: a folder that never left costs one look.
4. A folder that lacks the newest key that was made is older: what lacks any lacks that one. Where a person
   said that there is no newer copy, it serves.
5. The log is read before the folder: another process may add a key in between, and none is ever taken away.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeVar

from handlers.key_folder import KeysHeld, lost_version, require_belonging, require_key, to_note
from schemas import subjects
from schemas.errors import Conflict, NotFound, Rejected
from schemas.installation_events import (
    ErasureOrdered,
    KeyMade,
    KeysGivenUp,
    KeysNoted,
    read_installation_event,
)
from schemas.jcs import jcs
from schemas.jetstream import Message
from schemas.ports import Jet, KeyFiles, Keyring, Reader, Signers, Writer
from schemas.ports import KeyFolder as Folder
from streams.lifecycle import TRIES, give_way
from streams.wiring import Installation

log = logging.getLogger("lucid.keys")
T = TypeVar("T")


class KeyFolder:
    """The `keys/` folder of this installation, and what the log says of it."""

    def __init__(self, jet: Jet, folder: Folder, keyring: Keyring, signers: Signers, files: KeyFiles) -> None:
        self._jet, self._folder, self._files = jet, folder, files
        self._keyring, self._signers = keyring, signers

    async def open(self) -> None:
        """Return when the folder belongs to the log and can be used. Safe to repeat.

        Raises Denied (keys.missing, keys.foreign, keys.older, keys.log_missing, keys.restoring; keys.master,
        keys.kek: wrong ENCRYPTION_KEY), Misuse (config.encryption_key), Unavailable.
        """

        async def once() -> None:
            noted, seq = await keys_noted(self._jet)
            await self._require_belonging(noted)
            await asyncio.to_thread(self._make, noted)
            await self._note(noted, seq)
            if await asyncio.to_thread(self._folder.is_newest):
                given_up = KeysGivenUp(at_us=time.time_ns() // 1000)
                await self._jet.publish(subjects.KEYS_MADE, jcs(given_up.model_dump(mode="json")))
            await asyncio.to_thread(self._folder.end_newest)  # a crash before this makes one version too many
            await asyncio.to_thread(self._folder.join)

        await _through_conflicts(once)
        await self._erase_again()

    async def check(self) -> None:
        """Raises Denied (keys.missing, keys.foreign, keys.older, keys.log_missing, keys.restoring)."""
        noted, _ = await keys_noted(self._jet)
        await self._require_belonging(noted)

    async def note(self) -> None:
        """Let the log know every key that the folder holds. Safe to repeat."""

        async def once() -> None:
            await self._note(*await keys_noted(self._jet))

        await _through_conflicts(once)

    async def _require_belonging(self, noted: KeysNoted | None) -> None:
        held = await asyncio.to_thread(self._held)
        sessions = noted is None and await _last(self._jet, subjects.ALL_LIFECYCLE) is not None
        require_belonging(held, noted, sessions)
        await self._require_newest_key(held)

    async def _require_newest_key(self, held: KeysHeld) -> None:
        last = await _last(self._jet, subjects.KEYS_MADE)
        made = read_installation_event(last.data) if last else None
        if isinstance(made, KeyMade):
            require_key(held, made, await asyncio.to_thread(self._has, made.uid))

    def _has(self, uid: bytes) -> bool:
        file = self._files.open(uid)
        if file is not None:
            file.close()
        return file is not None

    async def _note(self, noted: KeysNoted | None, seq: int) -> None:
        held = await asyncio.to_thread(self._held)
        event = to_note(held, noted, time.time_ns() // 1000)
        if event is not None:
            await self._jet.append(subjects.INSTALLATION, jcs(event.model_dump(mode="json")), seq)

    async def _erase_again(self) -> None:
        """Bring a folder that is older than the log's last erasure up to it."""
        last = await _last(self._jet, subjects.ALL_ERASURES)
        done = await asyncio.to_thread(self._folder.erased_up_to)
        if last is None or last.seq <= done:
            return
        again = 0
        async for message in self._jet.read_all(subjects.LIFECYCLE, subjects.ALL_ERASURES, done + 1):
            event = read_installation_event(message.data)
            if isinstance(event, ErasureOrdered):
                again += await asyncio.to_thread(self._erase_unless_erased, event.uid)
            done = message.seq
        # A crash before this repeats the walk; the number is never ahead of what is done.
        await asyncio.to_thread(self._folder.note_erased, done)
        if again:
            log.warning("keys_reconciled erased=%d up_to=%d", again, done)

    def _erase_unless_erased(self, uid: bytes) -> bool:
        file = self._files.open(uid)
        if file is not None:
            is_erased = not file.data
            file.close()
            if is_erased:
                return False
        self._files.erase(uid)
        return file is not None

    def _make(self, noted: KeysNoted | None) -> None:
        self._keyring.keks()  # a wrong ENCRYPTION_KEY shows before it wraps anything
        if noted is None:
            self._folder.begin()
            self._keyring.begin()
            self._signers.begin()
        self._keyring.newest()
        if lost := lost_version(self._held(), noted):
            log.warning("master_key_given_up version=%d", lost)
            self._keyring.add_version(above=lost)

    def _held(self) -> KeysHeld:
        try:
            root = self._signers.root().fingerprint
        except NotFound:
            root = b""
        return KeysHeld(
            path=str(self._folder.path),
            installation=self._folder.installation(),
            joined=self._folder.joined(),
            restoring=self._folder.restoring(),
            is_newest=self._folder.is_newest(),
            masters=self._keyring.checks(),
            signers=tuple(one.fingerprint for one in self._signers.held()),
            root=root,
        )


def key_folder(here: Installation, jet: Jet) -> KeyFolder:
    """The installation's keys/, and what this log says of it."""
    return KeyFolder(jet, here.key_folder, here.keyring, here.signers, here.key_files)


async def order_erasure(jet: Writer, uid: bytes) -> None:
    """Let the log know that this key is to be erased, here and in every folder to come. Safe to repeat."""
    body = jcs(ErasureOrdered(uid=uid).model_dump(mode="json"))
    with suppress(Conflict):  # it is ordered already
        await jet.append(subjects.erasure(uid), body, 0)


async def note_key(jet: Writer, session: str, uid: bytes) -> None:
    """Let the log know that the session's key file was made, and is durable. Safe to repeat."""
    event = KeyMade(uid=uid, session=session, at_us=time.time_ns() // 1000)
    await jet.publish(subjects.KEYS_MADE, jcs(event.model_dump(mode="json")))


async def keys_noted(jet: Reader) -> tuple[KeysNoted | None, int]:
    """What the log knows of `keys/`, and the sequence of that event; None, 0: nothing yet, or no log."""
    last = await _last(jet, subjects.INSTALLATION)
    if last is None:
        return None, 0
    event = read_installation_event(last.data)
    if not isinstance(event, KeysNoted):
        raise Rejected(f"{event.type} where KeysNoted belongs", code="event.unexpected")
    return event, last.seq


async def _last(jet: Reader, subject: str) -> Message | None:
    """The newest message; None: there is none, or no log at all."""
    try:
        return await jet.last(subjects.LIFECYCLE, subject)
    except NotFound as error:
        if error.code != "stream.absent":
            raise
        return None


async def _through_conflicts(once: Callable[[], Awaitable[T]]) -> T:
    for number in range(TRIES):
        try:
            return await once()
        except Conflict:  # another process noted something, or our ack was lost: read again
            await give_way(number)
    raise Conflict("the log of the installation is too busy", code="log.busy")
