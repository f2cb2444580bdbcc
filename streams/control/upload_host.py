"""Creates sessions of the platform's own upload host; those that are asked for together share one turn.

    counters durable → key files → KeyMade in the log, counters taken → Created, one after the other

1. The key file is made before Created: the log holds fields that this key seals, so it must never be lost.
2. `pending` of the identity names the sessions of the last turn. So each key file without a session belongs
   to one of them, and is found: the next turn, or the next start, resolves it.
3. A pending session that was created keeps its key, and the next turn notes its genesis. One that was not
   loses its key: the erasure is in the log first, as for a destroyed session.
4. Each Created names the genesis of the session before it. If one is not appended, the later ones of its turn
   take another turn: no session of the line is ever missing.
5. The folder lock is held for a turn: processes on one data folder take turns. It is kept for requests that
   wait, but not longer than HELD_S. Another machine has another key, and is refused (host.key).
"""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TypeVar

from handlers.lifecycle.session import Session
from schemas.config.logs import logger
from schemas.errors import Denied, LucidError, Rejected, Unavailable
from schemas.events.commands import Open
from schemas.format.fragment import session_uid
from schemas.ports import HostIdentity, Identities
from schemas.subjects import UPLOAD_HOST
from streams.control.wanted_session import Wanted, create_command, genesis_of
from streams.event_store.event_store import EventStore
from streams.keys.folder import RequireKeys, note_key, order_erasure
from streams.keys.keystore import KeyStore
from streams.scheduling.retry import START, retry

TURN_MOST = 32
"""Sessions of one turn."""
HELD_S = 2.0
"""The longest that requests keep the lock of the folder between them."""
LET_GO_S = 0.06
"""Another process that waits for the lock looks every 0.05 s."""
CHECKED_S = 1.0
"""For so long a check that keys/ belongs to the log counts for other requests, too."""

log = logger("lucid.control")

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True, eq=False)
class _Asked:
    """A request that waits. done: the session, and whether this request created it."""

    wanted: Wanted
    done: "asyncio.Future[tuple[Session, bool]]"

    def end(self, result: tuple[Session, bool]) -> None:
        if not self.done.done():  # else the caller has given up
            self.done.set_result(result)

    def fail(self, error: BaseException) -> None:
        if self.done.done():
            return
        if isinstance(error, LucidError):  # each caller raises its own
            error = type(error)(error.message, code=error.code, hint=error.hint, place=error.place)
        self.done.set_exception(error)


@dataclass(slots=True)
class UploadHost:
    """The upload host of one installation. One for each process that answers commands."""

    store: EventStore
    keys: KeyStore
    require_keys: RequireKeys
    identities: Identities
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    _public: bytes = b""
    _waiting: deque[_Asked] = field(default_factory=deque)
    _turns: "asyncio.Task[None] | None" = None
    _checked_s: float = -CHECKED_S
    _line: dict[bytes, bytes] = field(default_factory=dict)
    """By uid, the genesis of each session that the last turn created."""

    async def public(self) -> bytes:
        """The evidence key by which the upload host is known. Raises Unavailable (host.locked)."""
        if not self._public:
            async with self._identity():
                pass
        return self._public

    async def create(self, wanted: Wanted) -> tuple[Session, bool]:
        """Return the session of this name, and whether this request created it.

        Raises Unavailable (host.locked, keys.*): it may have been created all the same. The next request of
        any session tells, or the next start.
        """
        asked = _Asked(wanted, asyncio.get_running_loop().create_future())
        self._waiting.append(asked)
        if self._turns is None or self._turns.done():
            self._turns = asyncio.create_task(self._take_turns())
        return await asked.done

    async def settle(self) -> None:
        """Resolve the sessions that a crash left pending, before commands are answered."""
        async with self._identity() as me:
            line = await self._resolve(me)
            if me.pending:
                await asyncio.to_thread(me.settle, me.pending[-1][0], line)

    @asynccontextmanager
    async def _identity(self) -> AsyncIterator[HostIdentity]:
        """The host's identity, locked. Raises Unavailable (host.locked)."""

        async def lock() -> HostIdentity:
            return await asyncio.to_thread(self.identities, UPLOAD_HOST)

        async with self._lock:
            with await retry(
                lock, START, when=lambda error: error.code == "host.locked", on_error=lambda _: None
            ) as me:
                self._public = me.public
                yield me

    async def _take_turns(self) -> None:
        """Take turns until no request waits. Each request gets an answer, also after an error."""
        while self._waiting:
            try:
                async with self._identity() as me:
                    end_s = time.monotonic() + HELD_S
                    while self._waiting and time.monotonic() < end_s:
                        await self._take_turn(me)
            except Exception as error:
                while self._waiting:
                    self._waiting.popleft().fail(error)
            if self._waiting:
                await asyncio.sleep(LET_GO_S)

    async def _take_turn(self, me: HostIdentity) -> None:
        some = [self._waiting.popleft() for _ in range(min(len(self._waiting), TURN_MOST))]
        try:
            line = await self._resolve(me)
            new = await self._not_there(some)
            if new:
                await self._create_all(me, [one for one, _ in new], [known for _, known in new], line)
        except Exception as error:
            for one in some:
                if one not in self._waiting:
                    one.fail(error)

    async def _not_there(self, some: Sequence[_Asked]) -> list[tuple[_Asked, Session]]:
        """The requests for new sessions, with the folds of their logs; the others are answered.

        Of several requests for one name the first counts: the others wait for the next turn.
        """
        first: dict[str, _Asked] = {}
        for one in some:
            first.setdefault(one.wanted.session, one)
        self._waiting.extendleft(one for one in reversed(some) if first[one.wanted.session] is not one)
        new = []
        found = await asyncio.gather(*map(self.store.log.load, first), return_exceptions=True)
        for one, session in zip(first.values(), found, strict=True):
            if isinstance(session, BaseException):
                one.fail(session)
            elif session.created is None:
                new.append((one, session))
            else:
                one.end((session, False))
        return new

    async def _create_all(
        self, me: HostIdentity, new: Sequence[_Asked], known: Sequence[Session], line: bytes
    ) -> None:
        """Create the sessions. line: genesis of the session before them."""
        await self._check_keys()
        names = [one.wanted.session for one in new]
        # A crash from here on leaves pending sessions: `_resolve` erases the keys of those not created.
        first = await asyncio.to_thread(me.begin_all, names, line)
        self._line.clear()
        uids = [session_uid(me.public, first + place) for place in range(len(new))]
        keys = await _all(*(self.keys.make(uid) for uid in uids))
        await asyncio.to_thread(lambda: [held.intake_public for held in keys])
        commands: list[tuple[_Asked, Session, Open, bytes]] = []
        for place, one in enumerate(new):
            held = keys[place]
            try:
                command = one.wanted.seal(create_command(me, one.wanted, first + place, line, held), held.dek)
            except LucidError as error:  # its fields cannot be sealed: nobody follows it in the line
                one.fail(error)
                continue
            line = genesis_of(command, held.intake_public)
            commands.append((one, known[place], command, line))
        # The newest key is noted when all are there: a folder that lacks one of them is an older one.
        await _all(
            note_key(self.store.jet, names[-1], uids[-1]),
            *(self.store.hosts.admit(command) for _, _, command, _ in commands),
        )
        for place, (one, session, command, own) in enumerate(commands):
            try:
                one.end((await self.store.log.execute(command, session), True))
            except Rejected as error:
                one.fail(error)
                self._waiting.extendleft(later for later, *_ in reversed(commands[place + 1 :]))
                return
            self._line[command.uid] = own

    async def _check_keys(self) -> None:
        now_s = time.monotonic()
        if now_s > self._checked_s + CHECKED_S:
            await self.require_keys()
            self._checked_s = now_s

    async def _resolve(self, me: HostIdentity) -> bytes:
        """The genesis of the last session that was created; keys of pending ones that were not are erased."""
        line = me.prev_genesis
        for name, counter in me.pending:
            uid = session_uid(me.public, counter)
            line = self._line.get(uid) or await self._resolve_one(name, uid) or line
        return line

    async def _resolve_one(self, name: str, uid: bytes) -> bytes:
        """The genesis of the session; empty: it holds no fragments and never will."""
        try:
            session = await self.store.log.load(name)
        except Rejected as error:
            # One damaged log must not keep all other sessions from being opened. Its key is kept.
            log.error("log_of_upload_damaged", session=name, error=error)
            return b""
        if session.created is not None and session.uid == uid:
            return await self._genesis_of(session)
        await self.require_keys()
        await order_erasure(self.store.jet, uid)
        outcome = await self.keys.erase(uid)
        log.warning("key_without_session", session=name, uid=uid.hex(), erased=outcome)
        return b""

    async def _genesis_of(self, session: Session) -> bytes:
        """The genesis of a created session; empty: it was never started, and its key is gone."""
        assert session.created is not None
        if session.intake:  # it was started: the log has it, also after the session was destroyed
            return genesis_of(session.created, session.intake)
        try:
            async with self.keys.using(session.uid, session.key_id) as held:
                if held is None:
                    return b""
                return genesis_of(session.created, held.keys.intake_public)
        except (Unavailable, Denied) as error:
            if error.code == "keys.io":
                raise
            # One lost key must not keep all other sessions from being opened.
            log.error("key_of_upload_lost", session=session.id, error=error)
            return b""


async def _all(*work: Awaitable[Result]) -> list[Result]:
    """The results, once each of them has ended. Raises the first error."""
    results = await asyncio.gather(*work, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return [result for result in results if not isinstance(result, BaseException)]
