"""Asks for sessions as the platform's own upload host: its counter, its signature, the session's first key.

    counter durable → key file → KeyMade in the log → counter taken → Created → genesis durable

1. The key file is made before Created: the log holds fields that this key seals, so it must never be lost.
2. The counter's `pending` names the session until its genesis is durable. So each key file without a session
   belongs to the pending one, and is found: the next session, or the next start, resolves it.
3. A pending session that was created keeps its key, and its genesis is noted. One that was not created loses
   its key: the erasure is in the log first, as for a destroyed session.
4. A request that is repeated after a crash goes on with the same counter and the same key.
5. The folder lock is held from the counter to the genesis: processes on one data folder take turns. Another
   machine has another key, and is refused (host.key).
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from handlers.crypto.keys import SessionKeys
from handlers.lifecycle.session import Session
from schemas.config.logs import logger
from schemas.errors import RefusedByState
from schemas.events.commands import CREATE_PREFIX, Open, create_request
from schemas.events.session import CaptureSettings, SessionPolicy, SessionSettings
from schemas.format.fragment import MAIN, genesis, session_uid
from schemas.ports import HostIdentity, Identities, Jet
from schemas.subjects import UPLOAD_HOST
from streams.event_store.session_log import SessionLog
from streams.keys.folder import RequireKeys, note_key, order_erasure
from streams.keys.keystore import KeyStore
from streams.scheduling.retry import START, retry

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

    async def public(self) -> bytes:
        """The evidence key by which the upload host is known. Raises Unavailable (host.locked)."""
        if not self._public:
            async with self._identity():
                pass
        return self._public

    @asynccontextmanager
    async def identity(self) -> AsyncIterator[HostIdentity]:
        """The host's identity, locked, with no pending session that was left behind by another one.

        Raises Unavailable (host.locked).
        """
        async with self._turn, self._identity() as me:
            yield me

    async def resolve(self, me: HostIdentity, but: str = "") -> None:
        """Resolve the pending session, unless it is `but`: note its genesis, or erase its key."""
        pending = me.pending
        if pending is None or pending[0] == but:
            return
        name, counter = pending
        uid = session_uid(me.public, counter)
        session = await SessionLog(self.jet).load(name)
        first = me.prev_genesis
        if session.created is not None and session.uid == uid:
            async with self.keys.using(uid, session.key_id) as held:
                if held is not None:  # else it is destroyed: it never held fragments
                    first = self._genesis(me, session, held.keys.intake_public)
        else:
            await self.require_keys()
            await order_erasure(self.jet, uid)
            outcome = await self.keys.erase(uid)
            log.warning("key_without_session", session=name, uid=uid.hex(), erased=outcome)
        await asyncio.to_thread(me.settle, name, first)

    async def prepare(self, me: HostIdentity, wanted: Wanted) -> tuple[Open, SessionKeys]:
        """The request, without its sealed fields, and the session's keys; both are durable."""
        await self.require_keys()
        counter = await asyncio.to_thread(me.begin, wanted.session)
        uid, previous = session_uid(me.public, counter), me.prev_genesis
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

    async def settle(self, me: HostIdentity, session: Session, keys: SessionKeys) -> None:
        """Note the genesis of a created session: from now on it is in the host's line."""
        intake = await asyncio.to_thread(lambda: keys.intake_public)
        await asyncio.to_thread(me.settle, session.id, self._genesis(me, session, intake))

    def _genesis(self, me: HostIdentity, session: Session, intake: bytes) -> bytes:
        created = session.created
        if created is None or created.host_key != me.public:
            raise RefusedByState(f"session {session.id} is not of this upload host", code="session.exists")
        return genesis(session.uid, MAIN, me.public, created.counter, created.prev_genesis, intake)

    @asynccontextmanager
    async def _identity(self) -> AsyncIterator[HostIdentity]:
        async def locked() -> HostIdentity:
            return await asyncio.to_thread(self.identities, UPLOAD_HOST)

        me = await retry(
            locked, START, when=lambda error: error.code == "host.locked", on_error=lambda _: None
        )
        self._public = me.public
        try:
            yield me
        finally:
            await asyncio.to_thread(me.__exit__, None, None, None)
