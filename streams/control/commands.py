"""Owns what each command does: `lucid.cmd.<name>`, one request and one answer each.

1. A command is decided by the log; nothing is kept here. Several services share the requests.
2. What a request leaves out is filled in: who asks, when, and a cause. With a cause of its own a request may
   be repeated after any failure.
3. `start` and `destroy` answer when the conductor has done its part, the others when the log holds them.
4. Members that a command does not know are refused.
"""

import asyncio
import json
import logging
import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from handlers.format.compression import check_cost
from handlers.lifecycle.decide import check_request, decide
from handlers.lifecycle.next_action import HOST_SILENT
from handlers.lifecycle.session import Session
from handlers.lifecycle.view import session_details
from handlers.retention.space import send_quota_bytes
from schemas import subjects
from schemas.errors import LucidError, Misuse, RefusedByState, Unavailable
from schemas.events import commands
from schemas.events.commands import Command, Create
from schemas.events.session import State
from schemas.format.chunk_header import Codec
from schemas.ports import Jet, Keyring, Signers
from streams.control import signing
from streams.control.client import answer, answer_error
from streams.control.places import Places
from streams.event_store.chunk_log import last_recorded, recorded_chunks
from streams.event_store.chunk_progress import ChunkProgress
from streams.event_store.dead_letters import absent_session, dead_letter_count, dead_letters
from streams.event_store.host_log import HostLog
from streams.event_store.session_directory import SessionDirectory
from streams.event_store.session_log import SessionLog
from streams.keys.folder import KeyFolder
from streams.keys.keystore import KeyStore
from streams.projections.session_list import SessionList

START_S, DESTROY_S = 20.0, 45.0
OPERATOR = "operator"

Body = dict[str, Any]
Handler = Callable[["Control", Body], Awaitable[Body]]

log = logging.getLogger("lucid.control")


@dataclass(frozen=True, slots=True)
class Control:
    """The commands. One for each process."""

    jet: Jet
    log: SessionLog
    directory: SessionDirectory
    keys: KeyStore
    keyring: Keyring
    signers: Signers
    folder: KeyFolder
    hosts: HostLog
    listed: SessionList
    places: Places
    compression_max_s: float = 8

    async def answer(self, name: str, raw: bytes) -> bytes:
        """The answer to one request; it never raises."""
        try:
            body = json.loads(raw or b"{}")
            if not isinstance(body, dict):
                raise Misuse("a request is a JSON object", code="command.form")
            return answer(await COMMANDS[name](self, body))
        except LucidError as error:
            return answer_error(error)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"]) or "it"
            return answer_error(Misuse(f"{name}: {where}: {first['msg']}", code="command.form"))
        except ValueError as error:
            return answer_error(Misuse(f"{name}: not JSON: {error}", code="command.form"))
        except Exception:
            log.exception("command_failed name=%s", name)
            return answer_error(LucidError(f"{name} failed inside; the log says why", code="command.bug"))

    async def create(self, body: Body) -> Body:
        """A host asks for a session; its signature, its key and its counter are checked first."""
        asked = Create.model_validate(_filled(body))
        check_request(asked)
        async with self.hosts.turn(asked):
            session = await self.log.load(asked.session)
            # Refused before the counter is taken. The counter before the session: a crash between leaves the
            # counter with this name, and the host asks again.
            if decide(session, asked):
                wants = asked.settings
                check_cost(Codec(wants.codec), wants.level, wants.chunk_bytes, self.compression_max_s)
                # Whose key it is comes before whose place: nobody takes the places of another host.
                await self.hosts.register(asked.host, asked.host_key, asked.at_us, asked.who)
                session = await self.places.create(asked.host, asked.session, self._admitted(asked, session))
            return session_details(session)

    async def start(self, body: Body) -> Body:
        """START; the answer waits for START_COMPLETE and names the intake key."""
        asked = commands.Start.model_validate(_filled(body))
        await self.places.start(asked.session, self.log.execute(asked))
        session = await self._until(
            asked.session, START_S, lambda s: bool(s.dek_id) or s.state not in (State.CREATED, State.STARTING)
        )
        if not session.dek_id:
            raise RefusedByState(
                f"session {session.id} did not start: it is {session.state}, {session.reason}",
                code="start.failed",
                hint=f"lucid sessions show {session.id}",
            )
        return {**session_details(session), "dek_id": session.dek_id.hex(), "intake": session.intake.hex()}

    async def abort(self, body: Body) -> Body:
        """End a recording whose host does not; what was recorded is sealed as aborted."""
        return await self._execute(commands.RequestEnd, {"end": "aborted", "reason": OPERATOR, **body})

    async def recover(self, body: Body) -> Body:
        """RECOVER, and drive again what is missing. accept_loss: give up what has died instead."""
        said = dict(body)
        accept_loss = bool(said.pop("accept_loss", False))
        session = await self._there(said)
        # Only in ERROR: elsewhere what is missing is on its way.
        if accept_loss and session.state == State.ERROR:
            await self._accept_losses(session, said)
        return await self._execute(
            commands.Recover, {**said, "chunks": await recorded_chunks(self.jet, session.id)}
        )

    async def redrive(self, body: Body) -> Body:
        """Make what an unsealed session misses again from the recording stream, under a new run."""
        session = await self._there(body)
        if session.sealed:
            raise RefusedByState(
                f"session {session.id} is sealed: its chunks are compared, not driven again",
                code="replay.sealed",
                hint=f"lucid replay {session.id}",
            )
        chunks = await recorded_chunks(self.jet, session.id)
        return await self._execute(commands.AllotRun, {"reason": OPERATOR, **body, "chunks": chunks})

    async def destroy(self, body: Body) -> Body:
        """Destroy for good; the answer waits until the session is shredded."""
        session = await self._there(body)
        never_started = session.state == State.CREATED
        kind = commands.Destroy if never_started else commands.Cleanup
        await self.log.execute(kind.model_validate(_filled({"reason": OPERATOR, **body})), session)
        return session_details(
            await self._until(
                session.id, DESTROY_S, lambda s: s.state == State.DESTROYED and s.shredded is not None
            )
        )

    async def show(self, body: Body) -> Body:
        """One session, with what its chunks have come to."""
        session = await self._there(body)
        last = await last_recorded(self.jet, session.id)
        stored = subjects.chunk(subjects.STORED, session.id)
        counts = await self.jet.subject_counts(subjects.CHUNKS, stored)
        state = last[1].state if last else None
        recorded = state.next_index if state else 0
        return {
            **session_details(session),
            "recorded": recorded,
            "fragments": state.fragments if state else 0,
            "plain": state.plain if state else 0,
            "missing": sum(track.next_seq for track in state.tracks) - state.fragments if state else 0,
            "equivocations": state.equivocations if state else 0,
            "host_gaps": state.host_gaps if state else 0,
            "host_gap_reason": state.host_gap_reason if state else "",
            # The events of a sealed session go with its source; a seal means that all were stored.
            "stored": recorded - len(session.losses) if session.sealed else counts.get(stored, 0),
            "refused": await dead_letters(self.jet, session.id),
            "dead": await dead_letter_count(self.jet, session.id),
        }

    async def ping(self, body: Body) -> Body:
        """That commands are answered: a service answers none before it knows every open session."""
        return {}

    async def list(self, body: Body) -> Body:
        """A page of all sessions, the newest first. state, host, text: only those. after: a page's `next`."""
        return await self.listed.page(body)

    async def room(self, body: Body) -> Body:
        """How many bytes of data a host may send before it asks again. sending: what it has under way."""
        info = await self.jet.info(subjects.RECORDINGS)
        recording = self.places.running()
        data = send_quota_bytes(info.bytes + int(body.get("sending", 0)), info.max_bytes, recording)
        return {"used": info.bytes, "limit": info.max_bytes, "data": data}

    async def rotate(self, body: Body) -> Body:
        """A new master key version, under which every session's key comes. after: go on with it there."""
        await self.folder.check()  # a folder that lost a version must not get another one of its number
        after = bytes.fromhex(body.get("after", ""))
        if not after:
            await asyncio.to_thread(self.keyring.add_version)
            await self.folder.note()
        done = await self.keys.rotate(after)
        first = done.refused[0] if done.refused else None
        return {
            **done._asdict(),
            "refused": len(done.refused),
            "first_refused": str(first) if first else "",
            "after": done.after.hex(),
        }

    async def _execute(self, kind: type[Command], body: Body) -> Body:
        return session_details(await self.log.execute(kind.model_validate(_filled(body))))

    async def _there(self, body: Body) -> Session:
        session = await self.log.load(str(body.get("session", "")))
        if session.created is None:
            raise await absent_session(self.jet, session.id)
        return session

    async def _admitted(self, asked: Create, session: Session) -> Session:
        await self.hosts.admit(asked)
        return await self.log.execute(asked, session)

    async def _until(self, session_id: str, timeout_s: float, wanted: Callable[[Session], bool]) -> Session:
        try:
            return await asyncio.wait_for(self.directory.until(session_id, wanted), timeout_s)
        except TimeoutError:
            raise Unavailable(
                f"session {session_id} is not done after {timeout_s:g} s; it goes on",
                code="command.slow",
                hint=f"lucid sessions show {session_id}",
            ) from None

    async def _accept_losses(self, session: Session, body: Body) -> None:
        """Give up every chunk that has died, and a host that is silent.

        What is missing and has not died can still be made: it is driven again, never given up.
        One event each, so a crash in between leaves some of them, and the next try does the rest.
        """
        known = ChunkProgress(session.id)
        await known.read_on(self.jet)
        said = {"session": session.id, "reason": body.get("reason", "accepted")}
        for index in known.facts(session, 0).died:
            session = await self.log.execute(
                commands.AcceptLoss.model_validate(_filled({**said, "index": index})), session
            )
        if session.reason == HOST_SILENT and known.ended_chunks is None:
            end = _filled({**said, "end": "host_lost"})
            await self.log.execute(commands.RequestEnd.model_validate(end), session)


def _filled(body: Body) -> Body:
    return {"at_us": time.time_ns() // 1000, "who": OPERATOR, "cause": secrets.token_hex(12), **body}


def _simple(kind: type[Command], **default: Any) -> Handler:
    async def handler(control: Control, body: Body) -> Body:
        return await control._execute(kind, {**default, **body})

    handler.__doc__ = kind.__doc__
    return handler


def _signing(command: Callable[[Signers, Body], Awaitable[Body]]) -> Handler:
    async def handler(control: Control, body: Body) -> Body:
        await control.folder.check()
        done = await command(control.signers, body)
        await control.folder.note()
        return done

    handler.__doc__ = command.__doc__
    return handler


COMMANDS: dict[str, Handler] = {
    "create": Control.create,
    "start": Control.start,
    "stop": _simple(commands.Stop, reason=OPERATOR),
    "abort": Control.abort,
    "pause": _simple(commands.Pause, reason=OPERATOR),
    "resume": _simple(commands.Resume, reason=OPERATOR),
    "error": _simple(commands.Error, reason=OPERATOR),
    "recover": Control.recover,
    "redrive": Control.redrive,
    "hold": _simple(commands.ChangeHold),
    "destroy": Control.destroy,
    "show": Control.show,
    "ping": Control.ping,
    "list": Control.list,
    "room": Control.room,
    "rotate": Control.rotate,
    "signers": _signing(signing.list_signers),
    "rotate_signer": _signing(signing.rotate_signer),
    "revoke_signer": _signing(signing.revoke_signer),
}
