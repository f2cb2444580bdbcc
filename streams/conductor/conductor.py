"""Owns the conductor: the service that brings every session to where it should be.

1. It asks `evaluate` what a session needs, does that one thing, and asks again, until nothing is needed.
2. It is woken by events, and looks at every unfinished session by itself every SWEEP_S: a wake that is lost
   costs time, never correctness.
3. Everything that it does may be done twice, at once and by several conductors: commands carry a cause that
   follows from the log, keys and files are made once, all else is repeatable.
4. What may succeed later is tried again; what never will brings the session to ERROR, with the code.
5. Each kind of work has slots of its own, and a host has its share of them: no session's slow step keeps
   another session, or another kind of work, from its turn.
"""

import asyncio
import logging
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field
from zlib import crc32

from handlers.lifecycle.next_action import (
    Action,
    Do,
    MakeKey,
    MakeSeal,
    Redrive,
    SendEnd,
    Shred,
    Silence,
    StartSeal,
    at_rest,
    evaluate,
)
from handlers.lifecycle.rules import allowed
from handlers.lifecycle.session import Session
from schemas import subjects
from schemas.errors import Conflict, LucidError, RefusedByState, Rejected, Retryable
from schemas.events import commands
from schemas.events.chunk import Recorded, Redriven, Stored
from schemas.events.commands import Command, Trigger
from schemas.events.headers import headers
from schemas.events.session import State
from schemas.ports import Signers
from schemas.ports.messages import Message
from streams.conductor.host_watch import HostActivity, send_end
from streams.event_store.chunk_progress import STEPS_READ, ChunkProgress
from streams.event_store.event_store import EventStore
from streams.evidence.evidence_store import EvidenceStore
from streams.evidence.sealing import Sealer
from streams.keys.folder import RequireKeys, note_key
from streams.keys.keystore import KeyStore
from streams.retention.shredding import Shredder
from streams.scheduling.clock import Clock, now_us
from streams.scheduling.fair_slots import FairSlots
from streams.scheduling.retry import retry
from streams.scheduling.session_tasks import SessionTasks, Trouble

SWEEP_S = 10.0
IDLE_SWEEPS = 6
"""A session that waits for its host is looked at by itself once in so many sweeps; its events wake it."""
AT_ONCE, ONE_HOST = 8, 4
"""Slots of each kind of work, and how many of them one host may hold."""
STEPS = 100
"""Actions for one session before it rests for a moment."""
WHO = "conductor"
DECIDING = "deciding"
"""Reading what is known of a session, and appending to its log what follows."""
KINDS: dict[type[Action | None], str] = {
    MakeKey: "starting",
    SendEnd: "ending",
    Redrive: "driving",
    StartSeal: "sealing",
    MakeSeal: "sealing",
    Shred: "destroying",
}
"""Work that takes longer."""
WAITING = (State.ACTIVE, State.PAUSED)
HEARD = (subjects.RECORDED, subjects.STORED)
ROUTINE = {kind.model_fields["type"].default for kind in (Recorded, Stored)}
"""Types of events that change nothing for a session that waits for its host: they are read with the next."""

log = logging.getLogger("lucid.conductor")


@dataclass(frozen=True, slots=True)
class ConductorParts:
    """What a conductor is wired from."""

    store: EventStore
    keys: KeyStore
    evidence: EvidenceStore
    signers: Signers
    require_keys: RequireKeys
    limits: Silence = field(default_factory=Silence)
    clock_us: Clock = now_us


@dataclass(slots=True)
class _Care:
    """What the conductor remembers of one session between two looks; all of it can be lost."""

    known: ChunkProgress
    session: Session
    look: set[str] = field(default_factory=lambda: set(STEPS_READ))
    """Which subjects are to be read on."""
    end_sent: bool = False


class Conductor:
    """Runs until cancelled. One event loop; any number of processes."""

    def __init__(self, parts: ConductorParts) -> None:
        self._parts = parts
        self._jet, self._log, self._directory = parts.store.jet, parts.store.log, parts.store.directory
        jet, keys, evidence, signers = self._jet, parts.keys, parts.evidence, parts.signers
        self._sealer = Sealer(jet, self._log, keys, evidence, signers)
        self._shredder = Shredder(jet, keys, evidence, signers, parts.require_keys)
        self._hearing = HostActivity(jet, parts.clock_us())
        self._care: dict[str, _Care] = {}
        self._tasks = SessionTasks(self._bring_on)
        self._slots = {kind: FairSlots(AT_ONCE, ONE_HOST) for kind in (DECIDING, *KINDS.values())}

    async def run(self) -> None:
        """Bring sessions on until cancelled."""
        await retry(self._directory.ready)
        self._directory.on_change(lambda session: self.wake(session.id))
        try:
            async with asyncio.TaskGroup() as tasks:
                heard = [subjects.chunk_filter(step) for step in HEARD]
                tasks.create_task(self._wake_on(subjects.CHUNKS, heard))
                tasks.create_task(self._wake_on(subjects.DEAD, [subjects.ALL_DEAD]))
                tasks.create_task(self._sweep())
        finally:
            await self._tasks.close()

    def wake(self, session_id: str, step: str = "", *, routine: bool = False) -> None:
        """Look at this session soon. step: where something new stands; empty: perhaps everywhere."""
        session = self._directory.get(session_id)
        if session is None or at_rest(session):
            self._care.pop(session_id, None)
            return
        care = self._care.setdefault(session_id, _Care(ChunkProgress(session_id), session))
        care.look |= {step} if step else set(STEPS_READ)
        if routine and session.state in WAITING:
            return
        self._tasks.wake(session_id)

    def trouble(self, session_id: str) -> Trouble | None:
        """What the session waits for; None: nothing that was heard of."""
        return self._tasks.trouble(session_id)

    # what wakes

    async def _wake_on(self, stream: str, filters: list[str]) -> None:
        start = (await retry(lambda: self._jet.info(stream))).last_seq + 1
        async for item in self._jet.follow(stream, filters, start):
            if isinstance(item, Message):
                routine = item.headers.get("ce-type") in ROUTINE
                # What is dead was recorded before, but perhaps not heard of yet: then all is looked at.
                step = subjects.step_of(item.subject) if stream == subjects.CHUNKS else ""
                self.wake(subjects.session_of(item.subject), step, routine=routine)

    async def _sweep(self) -> None:
        number = 0
        while True:
            try:
                live = [session for session in self._directory.sessions() if not at_rest(session)]
                await self._hearing.listen(self._parts.clock_us(), live)
            except Retryable as error:
                log.warning("hearing_failed error=%s", error)
            for session in self._directory.sessions():
                turn = (crc32(session.id.encode()) + number) % IDLE_SWEEPS == 0
                # The first sweep takes all: nobody listened to what happened before this process.
                if number == 0 or turn or session.state not in WAITING:
                    self.wake(session.id)
            number += 1
            await asyncio.sleep(SWEEP_S)

    # one session

    async def _bring_on(self, session_id: str) -> None:
        care = self._care.get(session_id)
        if care is None:
            return
        for _ in range(STEPS):
            action = await self._decide(care)
            if action is None:
                return
            log.debug("action session=%s action=%s", care.session.id, action)
            try:
                # Destroying pauses, and takes its turns by itself.
                turn = nullcontext() if isinstance(action, Shred) else self._turn(care, action)
                async with turn:
                    await self._carry_out(care, action, self._parts.clock_us())
            except (RefusedByState, Conflict):
                # The session has moved on: look again at everything.
                care.session = await self._log.advance(care.session)
                care.look = set(STEPS_READ)
            except Rejected as error:
                await self._give_up(care, error)
                return
        self._tasks.wake(session_id)

    def _turn(self, care: _Care, action: Action | None = None) -> AbstractAsyncContextManager[None]:
        created = care.session.created
        return self._slots[KINDS.get(type(action), DECIDING)].turn(created.host if created else "")

    async def _decide(self, care: _Care) -> Action | None:
        """What the session needs next, by all that is known of it now."""
        async with self._turn(care):
            # The log first, then the chunks: what a run drives is read after the run was.
            followed = self._directory.get(care.session.id)
            if followed is not None and followed.last_seq > care.session.last_seq:
                care.session = followed
            look, care.look = care.look, set()
            try:
                await care.known.read_on(self._jet, look)
            except BaseException:
                care.look |= look
                raise
            session, now_us = care.session, self._parts.clock_us()
            facts = care.known.facts(
                session,
                now_us,
                end_sent=care.end_sent,
                heard_us=self._hearing.heard_us(session),
                looked_us=self._hearing.looked_us(session),
            )
            return evaluate(facts, self._parts.limits)

    async def _carry_out(self, care: _Care, action: Action, now_us: int) -> None:
        session, created = care.session, care.session.created
        assert created is not None
        match action:
            case Do(command, said):
                await self._do(care, command, now_us, **said)
            case MakeKey():
                await self._parts.require_keys()
                # The key is durable before the log names it: a crash between finds it again.
                keys = await self._parts.keys.make(created.uid)
                await note_key(self._jet, session.id, created.uid)
                intake = await asyncio.to_thread(lambda: keys.intake_public)
                await self._do(care, commands.StartComplete, now_us, dek_id=keys.dek_id, intake=intake)
            case SendEnd():
                assert session.end_requested is not None
                await send_end(self._jet, session, session.end_requested, self._parts.signers)
                care.end_sent = True
            case Redrive(indices):
                await self._redrive(care, created.uid, indices)
            case StartSeal(n, stored):
                signer = await asyncio.to_thread(self._parts.signers.at, now_us)
                sealed_us = max(now_us, signer.from_us)
                said = {"n": n, "stored": stored, "signer": signer.fingerprint}
                await self._do(care, commands.BeginSeal, now_us, sealed_us=sealed_us, **said)
            case MakeSeal():
                await self._do(care, commands.CompleteSeal, now_us, **await self._sealer.make(session))
            case Shred():
                tombstone = await self._shredder.shred(session, lambda: self._turn(care, action))
                await self._do(care, commands.RecordShredding, now_us, tombstone=tombstone)

    async def _do(self, care: _Care, kind: type[Command], now_us: int, **said: object) -> None:
        """Execute a command whose cause follows from where the log stands: done once, whoever does it."""
        session = care.session
        cause = f"{WHO}.{kind.__name__}.{session.last_seq}"
        head = {"session": session.id, "at_us": now_us, "who": WHO, "cause": cause}
        care.session = await self._log.execute(kind.model_validate({**head, **said}), session)

    async def _redrive(self, care: _Care, uid: bytes, indices: tuple[int, ...]) -> None:
        session = care.session
        for index in indices:
            # Published twice after a crash, it drives twice: doubles change nothing.
            event = Redriven(
                session=session.id, uid=uid, run=session.run, index=index, recorded=care.known.recorded[index]
            )
            await self._jet.publish(
                subjects.chunk(subjects.REDRIVEN, session.id),
                event.model_dump_json().encode(),
                headers=headers(event.type),
                msg_id=f"{uid.hex()}.{session.run}.redriven.{index}",
            )
        care.look.add(subjects.REDRIVEN)

    async def _give_up(self, care: _Care, error: LucidError) -> None:
        """Bring the session to ERROR, unless it is on its way out: then the next sweep tries again."""
        session = care.session
        log.error("conducting_refused session=%s state=%s error=%s", session.id, session.state, error)
        on_its_way = session.state in (State.CLEANUP, State.DESTROYED)
        if not on_its_way and Trigger.ERROR in allowed(session):
            await self._do(care, commands.Error, self._parts.clock_us(), reason=error.code)
