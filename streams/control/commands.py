"""Carries out commands: `lucid.cmd.<name>`, one request and one answer each.

1. A command is decided by the log; nothing is kept here. Several services share the requests.
2. Every request carries a token. `Guard` verifies it. `permit_request` permits the command, and sets the name
   of the caller. `Auditor` records it (streams/control/auditor.py).
   A cause that a request leaves out is filled in. A request with a cause of its own may be repeated after any
   failure. `at_us` is always the time of this service: no period depends on the clock of a caller.
3. `start` and `destroy` answer when the conductor has done its part, the others when the log holds the event.
4. Members that a command does not know are refused.
"""

import json
import secrets
from collections.abc import Awaitable, Callable
from typing import Any

from pydantic import ValidationError

from handlers.access.commands import UNRECORDED
from handlers.format.compression import check_cost
from handlers.lifecycle.decide import check_request, decide
from handlers.lifecycle.next_action import HOST_SILENT
from handlers.lifecycle.session import Session
from handlers.lifecycle.view import session_details
from schemas import subjects
from schemas.config.logs import logger
from schemas.errors import Denied, LucidError, Misuse, RefusedByState
from schemas.events import commands
from schemas.events.commands import Command, Create
from schemas.events.session import State
from schemas.format.chunk_header import Codec
from schemas.subjects import UPLOAD_HOST
from streams.control.audit_commands import AuditCommands
from streams.control.client import answer, answer_error
from streams.control.guard import Guard, permit_request
from streams.control.key_commands import KeyCommands
from streams.control.opening import CreateAsked, Opening
from streams.control.queries import Queries
from streams.control.questions import Body
from streams.control.requests import malformed
from streams.event_store.chunk_log import last_recorded, recorded_chunks
from streams.event_store.chunk_progress import ChunkProgress
from streams.event_store.event_store import EventStore
from streams.scheduling.clock import Clock

START_S, DESTROY_S = 20.0, 45.0
"""How long the answer to `start` and to `destroy` waits for the conductor."""
OPERATOR = "operator"

Handler = Callable[[Body], Awaitable[Body]]

log = logger("lucid.control")


class Control:
    """Every command by its name. One for each process."""

    def __init__(
        self,
        store: EventStore,
        queries: Queries,
        keys: KeyCommands,
        opening: Opening,
        audit: AuditCommands,
        guard: Guard,
        clock_us: Clock,
    ) -> None:
        self._jet, self._recordings = store.jet, store.recordings
        self._log, self._hosts = store.log, store.hosts
        self._directory = store.directory
        questions = self._questions = queries.questions
        self._quota, self._outcomes = queries.quota, queries.outcomes
        self._compression_max_s, self._clock_us = opening.compression_max_s, clock_us
        self._opening = opening
        self._guard, self._audit = guard, audit
        self.handlers: dict[str, Handler] = {
            "create": self.create,
            "open": self._filling(opening.open),
            "update": self._filling(opening.update),
            "pause_pipeline": self._appending(commands.PausePipeline, reason=OPERATOR),
            "resume_pipeline": self._appending(commands.ResumePipeline, reason=OPERATOR),
            "start": self.start,
            "stop": self._appending(commands.Stop, reason=OPERATOR),
            "abort": self._appending(commands.RequestEnd, end="aborted", reason=OPERATOR),
            "pause": self._appending(commands.Pause, reason=OPERATOR),
            "resume": self._appending(commands.Resume, reason=OPERATOR),
            "error": self._appending(commands.Error, reason=OPERATOR),
            "recover": self.recover,
            "redrive": self.redrive,
            "hold": self._appending(commands.ChangeHold),
            "destroy": self.destroy,
            **questions.handlers,
            "scrub": queries.scrub,
            "scrub_now": queries.scrub_now,
            "scrub_acknowledge": queries.scrub_acknowledge,
            "running": queries.running.page,
            "ping": queries.ping,
            "room": queries.room,
            "rotate": keys.rotate,
            "signers": keys.list_signers,
            "rotate_signer": keys.rotate_signer,
            "revoke_signer": keys.revoke_signer,
            "audit": audit.page,
            "audit_head": audit.sign_head,
            "access_request": audit.access.request,
            "access_approve": audit.access.approve,
            "access_refuse": audit.access.refuse,
            "access_list": audit.access.list_page,
        }

    async def answer(self, name: str, raw: bytes) -> bytes:
        """The answer to one request; it never raises."""
        try:
            body = json.loads(raw or b"{}")
            if not isinstance(body, dict):
                raise Misuse("a request is a JSON object", code="command.form")
            return answer(await self._carried_out(name, body))
        except LucidError as error:
            return answer_error(error)
        except ValidationError as error:
            return answer_error(malformed(name, error))
        except ValueError as error:
            return answer_error(Misuse(f"{name}: not JSON: {error}", code="command.form"))
        except Exception:
            log.exception("command_failed", name=name)
            return answer_error(LucidError(f"{name} failed inside; the log says why", code="command.bug"))

    async def _carried_out(self, name: str, body: Body) -> Body:
        """Identify the caller, permit and record the request, and carry it out."""
        caller, asked = await self._guard.identify(name, body)
        try:
            asked = await permit_request(self._log, caller, name, asked)
        except LucidError as error:
            self._audit.auditor.refused(caller, name, asked, error)
            raise
        return await self._audit.auditor.carry_out(caller, name, asked, self.handlers[name])

    async def create(self, body: Body) -> Body:
        """A host asks for a session; its signature, its key and its counter are checked first."""
        given = CreateAsked.model_validate(self._filled(body))
        asked = given.signed
        check_request(asked)
        if asked.host == UPLOAD_HOST and asked.host_key != await self._opening.host.public():
            raise Denied(
                f"{UPLOAD_HOST} is the name of the platform's own upload host",
                code="host.reserved",
                hint="record under another host name",
            )
        async with self._hosts.turn(asked):
            session = await self._log.load(asked.session)
            # Refused before the counter is taken. The counter before the session: a crash between leaves the
            # counter with this name, and the host asks again.
            if decide(session, asked):
                wants = asked.settings
                check_cost(Codec(wants.codec), wants.level, wants.chunk_bytes, self._compression_max_s)
                # The key is checked before the quota: no host uses up the places of another one.
                await self._hosts.register(asked.host, asked.host_key, asked.at_us, asked.who)
                session = await self._quota.create(asked.host, asked.session, self._admitted(asked, session))
            return session_details(await self._opening.describe(session, given))

    async def start(self, body: Body) -> Body:
        """START; the answer waits for START_COMPLETE and names the intake key."""
        asked = commands.Start.model_validate(self._filled(body))
        # Decided before a place is taken: a start that is refused, or repeated, needs none.
        session, events = await self._log.decided(asked, self._directory.get(asked.session))
        if events:
            await self._quota.start(asked.session, self._log.execute(asked, session))
        session = await self._outcomes.until(
            asked.session,
            START_S,
            lambda s: bool(s.dek_id) or s.state not in (State.CREATED, State.STARTING),
            "has not started",
        )
        if not session.dek_id:
            raise RefusedByState(
                f"session {session.id} did not start: it is {session.state}, {session.reason}",
                code="start.failed",
                hint=f"lucid sessions show {session.id}",
            )
        return {**session_details(session), "dek_id": session.dek_id.hex(), "intake": session.intake.hex()}

    async def recover(self, body: Body) -> Body:
        """RECOVER, and drive missing chunks again. accept_loss: give up dead chunks instead."""
        more = dict(body)
        accept_loss = bool(more.pop("accept_loss", False))
        session = await self._questions.session(more)
        chunks = await recorded_chunks(self._jet, session.id)
        asked = commands.Recover.model_validate(self._filled({**more, "chunks": chunks}))
        # Only in ERROR: in other states missing chunks are on their way.
        if not decide(session, asked):  # a repeated one: it gives up nothing that died since
            return session_details(session)

        async def recovering() -> Session:
            known = await self._accept_losses(session, more) if accept_loss else session
            return await self._log.execute(asked, known)

        # It runs again: it needs a place like one that starts. Without a place no chunk is given up.
        return session_details(await self._quota.start(session.id, recovering()))

    async def redrive(self, body: Body) -> Body:
        """Make missing chunks of an unsealed session again from the recording stream, under a new run."""
        session = await self._questions.session(body)
        if session.sealed and body.get("cause") not in session.causes:
            raise RefusedByState(
                f"session {session.id} is sealed: its chunks are compared, not driven again",
                code="replay.sealed",
                hint=f"lucid replay {session.id}",
            )
        chunks = await recorded_chunks(self._jet, session.id)
        return await self._execute(commands.AllotRun, {"reason": OPERATOR, **body, "chunks": chunks})

    async def destroy(self, body: Body) -> Body:
        """Destroy for good; the answer waits until the session is shredded."""
        body = dict(body)
        unrecorded_only = bool(body.pop(UNRECORDED, False))
        session = await self._questions.session(body)
        never_started = session.state == State.CREATED
        if unrecorded_only and not never_started:
            await self._check_unrecorded(session)
        kind = commands.Destroy if never_started else commands.Cleanup
        await self._log.execute(kind.model_validate(self._filled({"reason": OPERATOR, **body})), session)
        session = await self._outcomes.until(
            session.id,
            DESTROY_S,
            lambda s: s.state == State.DESTROYED and s.shredded is not None,
            "is not destroyed",
        )
        return session_details(session)

    async def _check_unrecorded(self, session: Session) -> None:
        """Raises Denied (access.recorded): the session holds a recording, or the beginning of one.

        A fragment that comes after this look is sent by the host that has asked for the end, or by nobody.
        """
        host = session.created.host if session.created else ""
        sent = (await self._recordings.counts(session.id)).get(subjects.recording(host, session.id), 0)
        if session.seal_started or session.sealed or sent or await last_recorded(self._jet, session.id):
            raise Denied(
                f"session {session.id} holds a recording; the caller may destroy only an empty one",
                code="access.recorded",
                hint="ask with a token of the role ADMIN",
            )

    def _appending(self, kind: type[Command], **default: Any) -> Handler:
        """The handler of a command that only appends its event."""

        async def handler(body: Body) -> Body:
            return await self._execute(kind, {**default, **body})

        handler.__doc__ = kind.__doc__
        return handler

    def _filling(self, handler: Handler) -> Handler:
        """The handler of a command that another object carries out: its request has every member."""

        async def filled(body: Body) -> Body:
            return await handler(self._filled(body))

        filled.__doc__ = handler.__doc__
        return filled

    async def _execute(self, kind: type[Command], body: Body) -> Body:
        return session_details(await self._append(kind.model_validate(self._filled(body))))

    async def _append(self, asked: Command) -> Session:
        """Append the event of a command. The directory's fold is usually the newest: it saves a read."""
        return await self._log.execute(asked, self._directory.get(asked.session))

    def _filled(self, body: Body) -> Body:
        """The request with the members that it leaves out, and the time of this service."""
        return {"who": OPERATOR, "cause": secrets.token_hex(12), **body, "at_us": self._clock_us()}

    async def _admitted(self, asked: Create, session: Session) -> Session:
        """Take the host's counter, then append Created."""
        await self._hosts.admit(asked)
        return await self._log.execute(asked, session)

    async def _accept_losses(self, session: Session, body: Body) -> Session:
        """Give up every dead chunk, and a silent host.

        A chunk that is missing and not dead can still be made: it is driven again, never given up.
        One event each: after a crash in between, the next try does the rest.
        """
        progress = ChunkProgress(session.id)
        await progress.read_on(self._jet)
        request = {"session": session.id, "reason": body.get("reason", "accepted")}
        for index in progress.facts(session, 0).died:
            loss = commands.AcceptLoss.model_validate(self._filled({**request, "index": index}))
            session = await self._log.execute(loss, session)
        if session.reason == HOST_SILENT and progress.ended_chunks is None:
            end = commands.RequestEnd.model_validate(self._filled({**request, "end": "host_lost"}))
            session = await self._log.execute(end, session)
        return session
