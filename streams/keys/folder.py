"""Checks at each start that `keys/` and the log belong together, and makes an installation's first keys.

    keys/installation, master key, root, signer   →   KeysNoted in the log   →   keys/joined
    a key file is made   →   KeyMade in the log   →   the session names its key
    ErasureOrdered in the log   →   the key file is erased   →   at the next start: keys/erased

1. Each step is durable before the next. A crash before KeysNoted leaves a log that knows no keys: the next
   start makes the missing ones. A crash after it leaves a folder that the log names: the next start joins it.
2. A role calls `open` before it serves anything. Each function that makes or lists keys later calls `check`
   before.
3. A folder that was put back from an older copy holds keys that were erased since. Before anything is served,
   `open` erases all that the log names from `keys/erased` on. A folder that never left costs one read.
4. A folder that lacks the newest key is older: one that lacks any key lacks the newest. If a person said that
   there is no newer copy, it serves.
5. The log is read before the folder: another process may add a key in between, and none is ever removed. A
   process that begins the installation in between is seen by a second read, before anything is refused.
6. Anyone who may publish can write anything under these names: a malformed event counts for nothing.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

from handlers.crypto.key_folder import KeysHeld, lost_version, require_belonging, require_key, to_note
from schemas import subjects
from schemas.config.logs import logger
from schemas.errors import Conflict, Denied, NoSpace, NotFound, Rejected, Unavailable
from schemas.events.installation import (
    ErasureOrdered,
    InstallationEvent,
    KeyMade,
    KeysGivenUp,
    KeysNoted,
    read_installation_event,
)
from schemas.format.jcs import jcs
from schemas.ports import Jet, KeyFiles, KeyFolder, Keyring, Reader, Signers, Writer
from schemas.ports.messages import Message
from streams.event_store.session_log import read_event
from streams.scheduling.clock import now_us
from streams.scheduling.retry import retry_conflicts

log = logger("lucid.keys")
RequireKeys = Callable[[], Awaitable[None]]
"""`LoggedKeyFolder.require`."""


class LoggedKeyFolder:
    """The `keys/` folder of this installation, checked against its log."""

    def __init__(
        self, jet: Jet, folder: KeyFolder, keyring: Keyring, signers: Signers, files: KeyFiles
    ) -> None:
        self._jet, self._folder, self._files = jet, folder, files
        self._keyring, self._signers = keyring, signers

    async def open(self) -> None:
        """Return when the folder belongs to the log and can be used. Safe to repeat.

        Raises Denied (keys.missing, keys.foreign, keys.older, keys.log_missing, keys.restoring; keys.master,
        keys.kek: wrong ENCRYPTION_KEY; keys.moving, keys.moved), Misuse (config.encryption_key), Unavailable.
        """

        async def once() -> None:
            noted, seq = await self._belonging()
            await asyncio.to_thread(self._make, noted)
            await self._note(noted, seq)
            if await asyncio.to_thread(self._folder.is_newest):
                given_up = KeysGivenUp(at_us=now_us())
                await self._jet.publish(subjects.KEYS_MADE, jcs(given_up.model_dump(mode="json")))
            await asyncio.to_thread(self._folder.end_newest)  # a crash before this makes one version too many
            await asyncio.to_thread(self._folder.join)

        await asyncio.to_thread(self._folder.require_usable)
        try:
            if await asyncio.to_thread(self._is_begun):  # else nothing is there that could be moved away
                # Before anything is written: a file that is made during a move stays behind.
                await asyncio.to_thread(self._folder.use)
            await asyncio.to_thread(self._folder.reconcile)
            await retry_conflicts(once, "the installation")
            await asyncio.to_thread(self._folder.use)
            # Before the log's erasures, which pass by a key that only the mirror has still.
            await asyncio.to_thread(self._files.sweep)
            await self._catch_up_erasures()
        except BaseException:
            self._folder.release()
            raise

    def _is_begun(self) -> bool:
        return bool(self._folder.installation()) and not self._folder.restoring()

    async def check(self) -> None:
        """Raises Denied (keys.missing, keys.foreign, keys.older, keys.log_missing, keys.restoring)."""
        await self._belonging()

    async def require(self) -> None:
        """As `check`, before a key is made or erased: raises Unavailable, since it is tried again."""
        try:
            await self._belonging()
        except Denied as error:  # the installation's trouble, not the session's
            raise Unavailable(error.message, code=error.code, hint=error.hint) from error

    async def note(self) -> None:
        """Write every key of the folder into the log. Safe to repeat."""

        async def once() -> None:
            await self._note(*await keys_noted(self._jet))

        await retry_conflicts(once, "the installation")

    async def _belonging(self) -> tuple[KeysNoted | None, int]:
        """The keys that the log knows, if the folder belongs to it. Raises Denied."""
        noted, seq = await keys_noted(self._jet)
        while True:
            held = await asyncio.to_thread(self._held)
            try:
                require_belonging(held, noted, noted is None and await _knows_sessions(self._jet))
                await self._require_newest_key(held)
            except Denied:
                before = seq
                noted, seq = await keys_noted(self._jet)
                if seq == before:
                    raise
            else:
                return noted, seq

    async def _require_newest_key(self, held: KeysHeld) -> None:
        made, _ = await _last_event(self._jet, subjects.KEYS_MADE, KeyMade, KeysGivenUp)
        if isinstance(made, KeyMade):
            require_key(held, made, await asyncio.to_thread(self._has, made.uid))

    def _has(self, uid: bytes) -> bool:
        file = self._files.open(uid)
        if file is not None:
            file.close()
        return file is not None

    async def _note(self, noted: KeysNoted | None, seq: int) -> None:
        held = await asyncio.to_thread(self._held)
        event = to_note(held, noted, now_us())
        if event is not None:
            await self._jet.append(subjects.INSTALLATION, jcs(event.model_dump(mode="json")), seq)

    async def _catch_up_erasures(self) -> None:
        """Bring a folder that is older than the log's last erasure up to it."""
        last = await _last(self._jet, subjects.ALL_ERASURES)
        done = await asyncio.to_thread(self._folder.erased_up_to)
        if done and not await self._is_erasure(done):
            done = 0  # the number is of another history: this log was restored from an older copy
        if last is None or last.seq <= done:
            return
        again = 0
        async for message in self._jet.read_all(subjects.LIFECYCLE, subjects.ALL_ERASURES, done + 1):
            event = _event(message)
            if isinstance(event, ErasureOrdered) and message.subject == subjects.erasure(event.uid):
                again += await asyncio.to_thread(self._erase_unless_erased, event.uid)
            done = message.seq
        # Without this the next start repeats the walk; the number is never ahead of them.
        try:
            await asyncio.to_thread(self._folder.note_erased, done)
        except NoSpace as error:
            log.warning("erasures_not_noted", up_to=done, error=error)
        if again:
            log.warning("keys_reconciled", erased=again, up_to=done)

    async def _is_erasure(self, seq: int) -> bool:
        message = await self._jet.get(subjects.LIFECYCLE, seq)
        return message is not None and message.subject.startswith(subjects.ALL_ERASURES.rstrip("*"))

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
            log.warning("master_key_given_up", version=lost)
            self._keyring.add_version(above=lost)

    def _held(self) -> KeysHeld:
        self._folder.require_usable()
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


async def order_erasure(jet: Jet, uid: bytes) -> None:
    """Order in the log that this key is erased, here and in every later folder. Safe to repeat."""
    order, subject = ErasureOrdered(uid=uid), subjects.erasure(uid)
    body = jcs(order.model_dump(mode="json"))
    try:
        await jet.append(subject, body, 0)
    except Conflict:  # it is ordered already, or something else was written there
        if not any([_event(there) == order async for there in jet.read_all(subjects.LIFECYCLE, subject)]):
            await jet.publish(subject, body)


async def note_key(jet: Writer, session: str, uid: bytes) -> None:
    """Write into the log that the session's key file is durable. Safe to repeat."""
    event = KeyMade(uid=uid, session=session, at_us=now_us())
    await jet.publish(subjects.KEYS_MADE, jcs(event.model_dump(mode="json")))


async def keys_noted(jet: Reader) -> tuple[KeysNoted | None, int]:
    """The keys that the log knows, and the sequence of that event; None, 0: none yet, or no log."""
    event, seq = await _last_event(jet, subjects.INSTALLATION, KeysNoted)
    return event if isinstance(event, KeysNoted) else None, seq


async def _last_event(
    jet: Reader, subject: str, *kinds: type[InstallationEvent]
) -> tuple[InstallationEvent | None, int]:
    """The newest event of these kinds, and the sequence of the newest message of any kind."""
    last = await _last(jet, subject)
    if last is None:
        return None, 0
    event = _event(last)
    if not isinstance(event, kinds):
        event = None
        async for message in jet.read_all(subjects.LIFECYCLE, subject):
            found = _event(message)
            event = found if isinstance(found, kinds) else event
    return event, last.seq


def _event(message: Message) -> InstallationEvent | None:
    """The event in a message; None: it is malformed."""
    try:
        return read_installation_event(message.data)
    except Rejected as error:
        log.warning("installation_event_malformed", subject=message.subject, seq=message.seq, error=error)
        return None


async def _knows_sessions(jet: Reader) -> bool:
    """Whether any session was ever created here."""
    if await _last(jet, subjects.ALL_LIFECYCLE) is None:
        return False
    async for message in jet.read_all(subjects.LIFECYCLE, subjects.ALL_LIFECYCLE):
        with suppress(Rejected):
            if read_event(message.data) is not None:
                return True
    return False


async def _last(jet: Reader, subject: str) -> Message | None:
    """The newest message; None: there is none, or no log at all."""
    try:
        return await jet.last(subjects.LIFECYCLE, subject)
    except NotFound as error:
        if error.code != "stream.absent":
            raise
        return None
