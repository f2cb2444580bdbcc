"""Asks for sessions as the platform's own upload host: its counter, its signature, the session's first key.

    counter durable → key file → KeyMade in the log → counter taken → Created → genesis durable

1. The key file is made before Created: the log holds fields that this key seals, so it must never be lost.
2. The counter's `pending` names the session until its genesis is durable. So each key file without a session
   belongs to the pending one, and is found: the next session, or the next start, resolves it.
3. A pending session that was created keeps its key, and its genesis is noted with the next counter: one
   write for both. One that was not created loses its key: the erasure is in the log first, as for a destroyed
   session.
4. A request that is repeated after a crash goes on with the same counter and the same key.
5. The folder lock is held from the counter to the genesis: processes on one data folder take turns. It is
   kept for the next request that waits, but not longer than HELD_S. Another machine has another key, and is
   refused (host.key).
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from handlers.crypto.keys import SessionKeys
from handlers.lifecycle.session import Session
from schemas.config.logs import logger
from schemas.errors import Denied, Unavailable
from schemas.events.commands import CREATE_PREFIX, Open, create_request
from schemas.events.session import CaptureSettings, SessionPolicy, SessionSettings
from schemas.format.fragment import MAIN, genesis, session_uid
from schemas.ports import HostIdentity, Identities, Jet
from schemas.subjects import UPLOAD_HOST
from streams.event_store.session_log import SessionLog
from streams.keys.folder import RequireKeys, note_key, order_erasure
from streams.keys.keystore import KeyStore
from streams.scheduling.retry import START, retry

HELD_S = 2.0
"""The longest that requests keep the lock of the folder between them."""
LET_GO_S = 0.06
"""Another process that waits for the lock looks every 0.05 s."""
CHECKED_S = 1.0
"""For so long a check that keys/ belongs to the log counts for other requests, too."""

log = logger("lucid.control")


@dataclass(frozen=True, slots=True)
class Wanted:
    """The platform's part of a request for a session. cause: of the command."""

    session: str
    at_us: int
    who: str
    cause: str
    settings: SessionSettings
    policy: SessionPolicy | None = None
    capture: CaptureSettings | None = None


@dataclass(slots=True)
class UploadHost:
    """The upload host of one installation. One for each process that answers commands."""

    jet: Jet
    keys: KeyStore
    require_keys: RequireKeys
    identities: Identities
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    _public: bytes = b""
    _me: HostIdentity | None = None
    """The identity that is kept for the next request."""
    _waiting: int = 0
    _locked_s: float = 0
    _checked_s: float = -CHECKED_S
    _created: tuple[bytes, bytes] = b"", b""
    """Uid and genesis of the last session that this process created."""

    async def public(self) -> bytes:
        """The evidence key by which the upload host is known. Raises Unavailable (host.locked)."""
        if not self._public:
            async with self.identity():
                pass
        return self._public

    @asynccontextmanager
    async def identity(self) -> AsyncIterator[HostIdentity]:
        """The host's identity, locked, for one request after the other. Raises Unavailable (host.locked)."""
        self._waiting += 1
        try:
            async with self._turn:
                me = self._me or await self._locked()
                try:
                    yield me
                finally:
                    await self._let_go(me)
        finally:
            self._waiting -= 1

    async def _locked(self) -> HostIdentity:
        async def lock() -> HostIdentity:
            return await asyncio.to_thread(self.identities, UPLOAD_HOST)

        me = await retry(lock, START, when=lambda error: error.code == "host.locked", on_error=lambda _: None)
        self._public, self._locked_s = me.public, time.monotonic()
        return me

    async def _let_go(self, me: HostIdentity) -> None:
        """Release the lock, unless another request waits and may keep it."""
        is_over = time.monotonic() > self._locked_s + HELD_S
        if self._waiting > 1 and not is_over:
            self._me = me
            return
        self._me = None
        me.__exit__(None, None, None)
        if self._waiting > 1:
            await asyncio.sleep(LET_GO_S)

    async def _check_keys(self) -> None:
        now_s = time.monotonic()
        if now_s > self._checked_s + CHECKED_S:
            await self.require_keys()
            self._checked_s = now_s

    async def resolve(self, me: HostIdentity, but: str = "") -> bytes:
        """Resolve the pending session: return its genesis, or erase its key and return the one before it.

        but: a session that goes on, if it is the pending one.
        """
        pending = me.pending
        if pending is None or pending[0] == but:
            return me.prev_genesis
        name, counter = pending
        uid = session_uid(me.public, counter)
        if self._created[0] == uid:
            return self._created[1]
        session = await SessionLog(self.jet).load(name)
        if session.created is not None and session.uid == uid:
            return await self._genesis_of(session) or me.prev_genesis
        await self.require_keys()
        await order_erasure(self.jet, uid)
        outcome = await self.keys.erase(uid)
        log.warning("key_without_session", session=name, uid=uid.hex(), erased=outcome)
        return me.prev_genesis

    async def prepare(self, me: HostIdentity, wanted: Wanted, previous: bytes) -> tuple[Open, SessionKeys]:
        """The request, without its sealed fields, and the session's keys; both are durable.

        previous: the genesis of the session before, as `resolve` returns it.
        """
        await self._check_keys()
        counter = await asyncio.to_thread(me.begin, wanted.session, previous)
        uid = session_uid(me.public, counter)
        keys = await self.keys.make(uid)
        await note_key(self.jet, wanted.session, uid)
        asked = create_request(wanted.session, UPLOAD_HOST, me.public, counter, previous, wanted.settings)
        command = Open(
            session=wanted.session,
            at_us=wanted.at_us,
            who=wanted.who,
            cause=wanted.cause,
            host=UPLOAD_HOST,
            host_key=me.public,
            counter=counter,
            prev_genesis=previous,
            settings=wanted.settings,
            request=me.key.sign(CREATE_PREFIX + asked),
            policy=wanted.policy,
            capture=wanted.capture,
            dek_id=keys.dek_id,
        )
        return command, keys

    async def _genesis_of(self, session: Session) -> bytes:
        """The genesis of a created session; empty: its key is gone, so it holds no fragments."""
        try:
            async with self.keys.using(session.uid, session.key_id) as held:
                return _genesis(session, held.keys.intake_public) if held is not None else b""
        except (Unavailable, Denied) as error:
            if error.code == "keys.io":
                raise
            # One lost key must not keep all other sessions from being opened.
            log.error("key_of_upload_lost", session=session.id, error=error)
            return b""

    async def note(self, session: Session, keys: SessionKeys) -> None:
        """Remember the genesis of a created session. After a crash `resolve` makes it again."""
        intake = await asyncio.to_thread(lambda: keys.intake_public)
        self._created = session.uid, _genesis(session, intake)


def _genesis(session: Session, intake: bytes) -> bytes:
    created = session.created
    assert created is not None
    return genesis(session.uid, MAIN, created.host_key, created.counter, created.prev_genesis, intake)
