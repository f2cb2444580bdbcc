"""The conductor: a service that brings every session to its next state until nothing is left to do.

1. It asks `evaluate` for the next action of a session, carries it out, and asks again, until there is none.
2. Events wake it, and every SWEEP_S it examines every unfinished session by itself: a lost wake costs time,
   never correctness.
3. Every action may be done twice, at once, and by several conductors. The cause of a command follows from
   the log, keys and files are created only if absent, and everything else can be repeated.
4. An action that may succeed later is retried. One that never will brings the session to ERROR, with the
   code.
5. Each kind of work has slots of its own, and a host has its share of them: a slow step delays no other
   session of another host, and no other kind of work.
"""

import asyncio
import time
from contextlib import AbstractAsyncContextManager, nullcontext
from zlib import crc32

from handlers.lifecycle.next_action import (
    Action,
    Execute,
    MakeKey,
    MakeSeal,
    Redrive,
    SendEnd,
    SendFinal,
    Shred,
    StartSeal,
    evaluate,
    is_idle,
)
from handlers.lifecycle.rules import allowed
from handlers.lifecycle.session import Session
from handlers.lifecycle.stage_progress import Sample
from schemas import subjects
from schemas.config.logs import logger
from schemas.errors import (
    Conflict,
    EvidenceFalse,
    LucidError,
    RefusedByState,
    Rejected,
    Retryable,
)
from schemas.events import commands
from schemas.events.chunk import Recorded, Stored
from schemas.events.commands import Command, Trigger
from schemas.events.session import State
from schemas.ports.messages import Message
from schemas.ports.metrics import count_false
from streams.conductor.host_watch import HostActivity, send_end
from streams.conductor.parts import ConductorParts
from streams.conductor.redriving import redrive
from streams.conductor.tracked import Tracked, steps_after
from streams.event_store.chunk_progress import STEPS_READ, ChunkProgress
from streams.evidence.sealing import Sealer
from streams.keys.first_key import first_key
from streams.retention.shredding import Shredder
from streams.scheduling.fair_slots import FairSlots
from streams.scheduling.retry import retry
from streams.scheduling.session_tasks import SessionTasks, Trouble

SWEEP_S = 10.0
IDLE_SWEEPS = 6
"""A session that waits for its host is examined once in so many sweeps; its events wake it."""
AT_ONCE, ONE_HOST = 8, 4
"""Slots of each kind of work, and how many of them one host may hold."""
STEPS = 100
"""The most actions for one session before the others have a turn."""
WHO = "conductor"
DECIDING = "deciding"
"""Reading the progress of a session, and appending an event to its log."""
KINDS: dict[type[Action | None], str] = {
    MakeKey: "starting",
    SendEnd: "ending",
    SendFinal: "ending",
    Redrive: "driving",
    StartSeal: "sealing",
    MakeSeal: "sealing",
    Shred: "destroying",
}
"""The kind of work of each action; an action that is not listed is DECIDING."""
WAITING = (State.ACTIVE, State.PAUSED)
"""States in which a session waits for its host."""
WAKING_STEPS = (subjects.RECORDED, subjects.STORED)
ROUTINE = {kind.model_fields["type"].default for kind in (Recorded, Stored)}
"""Types of events that change nothing for a session that waits for its host: they are read with the next
event."""

log = logger("lucid.conductor")


class Conductor:
    """Runs until cancelled. One event loop; any number of processes."""

    def __init__(self, parts: ConductorParts) -> None:
        self._parts = parts
        self._jet, self._log, self._directory = parts.store.jet, parts.store.log, parts.store.directory
        jet, keys, evidence, signers = self._jet, parts.keys, parts.evidence, parts.signers
        self._sealer = Sealer(jet, self._log, keys, evidence, signers)
        self._shredder = Shredder(parts.store.recordings, keys, evidence, signers, parts.require_keys)
        self._activity = HostActivity(parts.store.recordings, parts.clock_us())
        self._tracked: dict[str, Tracked] = {}
        self._false = count_false(parts.meter, "seal")
        text = "Time of an action of the conductor, by kind of work."
        self._seconds = {
            kind: parts.meter.histogram("lucid_conductor_seconds", text, work=kind)
            for kind in (DECIDING, *KINDS.values())
        }
        self._tasks = SessionTasks(self._advance)
        self._slots = {kind: FairSlots(AT_ONCE, ONE_HOST) for kind in (DECIDING, *KINDS.values())}

    async def run(self) -> None:
        """Carry out actions until cancelled."""
        await retry(self._directory.ready)
        self._directory.on_change(self._changed)
        try:
            async with asyncio.TaskGroup() as tasks:
                waking = [subjects.chunk_filter(step) for step in WAKING_STEPS]
                tasks.create_task(self._wake_on(subjects.CHUNKS, waking))
                tasks.create_task(self._wake_on(subjects.DEAD, [subjects.ALL_DEAD]))
                tasks.create_task(self._sweep())
        finally:
            await self._tasks.close()

    def wake(self, session_id: str, step: str = "", *, routine: bool = False) -> None:
        """Examine this session soon. step: the pipeline step with a new event; empty: perhaps every step.

        routine: the event changes nothing for a session that waits for its host.
        """
        session = self._directory.get(session_id)
        if session is None or is_idle(session):
            self._tracked.pop(session_id, None)
            return
        tracked = self._track(session)
        tracked.unread |= {step} if step else set(STEPS_READ)
        # A recording with a limit must be looked at with each chunk.
        if routine and session.state in WAITING and session.policy.max_bytes is None:
            return
        self._tasks.wake(session_id)

    def _track(self, session: Session) -> Tracked:
        return self._tracked.setdefault(session.id, Tracked(ChunkProgress(session.id), session))

    def _changed(self, session: Session) -> None:
        """The log has an event of this session."""
        if is_idle(session):
            self._tracked.pop(session.id, None)
            return
        tracked = self._track(session)
        tracked.unread |= steps_after(tracked.session, session)
        self._tasks.wake(session.id)

    def troubles(self) -> dict[str, Trouble]:
        """The error that keeps each waiting session waiting."""
        return self._tasks.troubles()

    def recorded(self) -> dict[str, Sample]:
        """A look at the stage `record` by session, as of the last sweep."""
        return self._activity.recorded(self._unfinished(), self._parts.clock_us())

    def _unfinished(self) -> list[Session]:
        return [session for session in self._directory.sessions() if not is_idle(session)]

    def trouble(self, session_id: str) -> Trouble | None:
        """The error that delays the session; None: none is known."""
        return self._tasks.trouble(session_id)

    def heard_us(self, session: Session) -> int:
        """When the session's host was last heard; 0: not known."""
        return self._activity.heard_us(session)

    async def _wake_on(self, stream: str, filters: list[str]) -> None:
        start = (await retry(lambda: self._jet.info(stream))).last_seq + 1
        async for item in self._jet.follow(stream, filters, start):
            if isinstance(item, Message):
                routine = item.headers.get("ce-type") in ROUTINE
                # A dead chunk was recorded before, perhaps unread yet: then every step is read.
                step = subjects.step_of(item.subject) if stream == subjects.CHUNKS else ""
                self.wake(subjects.session_of(item.subject), step, routine=routine)

    async def _sweep(self) -> None:
        number = 0
        while True:
            try:
                await self._activity.listen(self._parts.clock_us(), self._unfinished())
            except Retryable as error:
                log.warning("host_watch_failed", error=error)
            for session in self._directory.sessions():
                turn = (crc32(session.id.encode()) + number) % IDLE_SWEEPS == 0
                # The first sweep takes all: events before this process woke nobody.
                if number == 0 or turn or session.state not in WAITING:
                    self.wake(session.id)
            number += 1
            await asyncio.sleep(SWEEP_S)

    async def _advance(self, session_id: str) -> None:
        tracked = self._tracked.get(session_id)
        if tracked is None:
            return
        for _ in range(STEPS):
            action = await self._decide(tracked)
            if action is None:
                return
            log.debug("action", session=tracked.session.id, action=action)
            try:
                # Destroying pauses between its turns, and takes them by itself.
                turn = nullcontext() if isinstance(action, Shred) else self._turn(tracked, action)
                async with turn:
                    began_s = time.perf_counter()
                    await self._carry_out(tracked, action, self._parts.clock_us())
                    self._seconds[KINDS.get(type(action), DECIDING)].observe(time.perf_counter() - began_s)
            except (RefusedByState, Conflict):
                # The session has moved on: read every step again.
                tracked.session = await self._log.advance(tracked.session)
                tracked.unread = set(STEPS_READ)
            except Rejected as error:
                await self._give_up(tracked, error)
                return
        self._tasks.wake(session_id)

    def _turn(self, tracked: Tracked, action: Action | None = None) -> AbstractAsyncContextManager[None]:
        """Hold a slot of the action's kind of work. action None: deciding."""
        created = tracked.session.created
        return self._slots[KINDS.get(type(action), DECIDING)].turn(created.host if created else "")

    async def _decide(self, tracked: Tracked) -> Action | None:
        """The next action of the session, by all events up to now; None: there is none."""
        async with self._turn(tracked):
            # The log first, then the chunks: the chunks of a run are read after its start was.
            followed = self._directory.get(tracked.session.id)
            if followed is not None and followed.last_seq > tracked.session.last_seq:
                tracked.session = followed
            steps, tracked.unread = tracked.unread, set()
            try:
                await tracked.progress.read_on(self._jet, steps)
            except BaseException:
                tracked.unread |= steps
                raise
            session, now_us = tracked.session, self._parts.clock_us()
            facts = tracked.progress.facts(
                session,
                now_us,
                end_sent=tracked.end_sent,
                final_sent=tracked.final_sent,
                heard_us=self._activity.heard_us(session),
                looked_us=self._activity.looked_us(session),
            )
            return evaluate(facts, self._parts.limits)

    async def _carry_out(self, tracked: Tracked, action: Action, now_us: int) -> None:
        session = tracked.session
        match action:
            case Execute(command, fields):
                await self._do(tracked, command, now_us, **fields)
            case MakeKey():
                parts = self._parts
                keys = await first_key(parts.keys, parts.require_keys, self._jet, session)
                intake = await asyncio.to_thread(lambda: keys.intake_public)
                await self._do(tracked, commands.StartComplete, now_us, dek_id=keys.dek_id, intake=intake)
            case SendEnd():
                assert session.end_requested is not None
                await send_end(
                    self._parts.store.recordings, session, session.end_requested, self._parts.signers
                )
                tracked.end_sent = True
            case SendFinal():
                await self._parts.finish_upload(session.id)
                tracked.final_sent = True
            case Redrive(indices):
                await redrive(self._jet, session, indices, tracked.progress.recorded)
                tracked.unread.add(subjects.REDRIVEN)
            case StartSeal(n, stored):
                signer = await asyncio.to_thread(self._parts.signers.at, now_us)
                sealed_us = max(now_us, signer.from_us)
                fields = {"n": n, "stored": stored, "signer": signer.fingerprint}
                await self._do(tracked, commands.BeginSeal, now_us, sealed_us=sealed_us, **fields)
            case MakeSeal():
                await self._do(tracked, commands.CompleteSeal, now_us, **await self._sealer.make(session))
            case Shred():
                tombstone = await self._shredder.shred(session, lambda: self._turn(tracked, action))
                await self._do(tracked, commands.RecordShredding, now_us, tombstone=tombstone)

    async def _do(self, tracked: Tracked, kind: type[Command], now_us: int, **fields: object) -> None:
        """Execute a command once, however many conductors do: its cause follows from the end of the log."""
        session = tracked.session
        cause = f"{WHO}.{kind.__name__}.{session.last_seq}"
        head = {"session": session.id, "at_us": now_us, "who": WHO, "cause": cause}
        tracked.session = await self._log.execute(kind.model_validate({**head, **fields}), session)
        tracked.unread |= steps_after(session, tracked.session)

    async def _give_up(self, tracked: Tracked, error: LucidError) -> None:
        """Bring the session to ERROR; one that is being destroyed is retried with the next sweep instead."""
        session = tracked.session
        if isinstance(error, EvidenceFalse):
            self._false.add()
        log.error("conducting_refused", session=session.id, state=session.state, error=error)
        is_leaving = session.state in (State.CLEANUP, State.DESTROYED)
        if not is_leaving and Trigger.ERROR in allowed(session):
            await self._do(tracked, commands.Error, self._parts.clock_us(), reason=error.code)
