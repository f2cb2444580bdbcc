"""Reads and appends a session's event log; handlers/lifecycle decides which events may be appended.

1. An append expects the last sequence that the decision was made on. After a Conflict the log is read on from
   there and the decision made again. If the command's own event is there (its ack was lost), it is done.
2. So a command may be executed again after any failure, and any number of writers may execute at once.
3. A caller may hand in a fold. The first decision is made on it: most are the newest, and save a read. A
   stale one conflicts. Its word that a command is refused, or done, counts only when the log was read.
4. A read may lag behind the leader. Then the append conflicts, and reading goes on; nothing is overwritten.
"""

from collections.abc import AsyncGenerator

from pydantic import ValidationError

from handlers.lifecycle.decide import decide
from handlers.lifecycle.session import Session, evolve, initial
from schemas import subjects
from schemas.buffers import Bytes
from schemas.config.logs import logger
from schemas.errors import Rejected, session_absent
from schemas.events.commands import Command
from schemas.events.session import EVENT, Created, Event, Transition, stored_bytes
from schemas.ports import Jet, Span, Tracer
from schemas.ports.telemetry import CURRENT, NO_SPAN
from schemas.telemetry import span_facts
from schemas.telemetry.trace_context import SESSION_KEY
from streams.scheduling.retry import LOG_OUTAGE, retry, retry_conflicts

SPAN = "session {}"

log = logger("lucid.lifecycle")


def read_event(data: Bytes) -> Event | None:
    """The event in one message of a session's log; None: its type is unknown to this version.

    Raises Rejected (event.malformed).
    """
    try:
        return EVENT.validate_json(data)
    except ValidationError as error:
        if error.errors()[0]["type"] == "union_tag_invalid":
            return None
        raise Rejected(
            f"not an event of a session: {error.errors()[0]['msg']}", code="event.malformed"
        ) from None


class SessionLog:
    """The logs of all sessions. It holds the connection alone."""

    def __init__(self, jet: Jet) -> None:
        self._jet = jet

    @property
    def tracer(self) -> Tracer:
        """Of the connection."""
        return self._jet.tracer

    async def load(self, session_id: str) -> Session:
        """The fold of the session's log; `created` is None when there is no such session."""
        return await self.advance(initial(subjects.session_id(session_id)))

    async def existing(self, session_id: str) -> Session:
        """As `load`. Raises NotFound (session.absent)."""
        session = await self.load(session_id)
        if session.created is None:
            raise session_absent(session_id)
        return session

    async def advance(self, session: Session) -> Session:
        """The session with every later event folded in. Raises Unavailable, Rejected (event.malformed)."""
        subject = subjects.lifecycle(session.id)
        async for message in self._jet.read_all(subjects.LIFECYCLE, subject, session.last_seq + 1):
            session = evolve(session, read_event(message.data), message.seq)
        return session

    async def history(self, session_id: str) -> list[bytes]:
        """Every event's stored bytes, in order: line n of the history is item n - 1."""
        return [line async for line in self.lines(session_id)]

    async def lines(self, session_id: str) -> AsyncGenerator[bytes, None]:
        """As `history`, one after the other."""
        subject = subjects.lifecycle(subjects.session_id(session_id))
        async for message in self._jet.read_all(subjects.LIFECYCLE, subject):
            yield bytes(message.data)

    async def decided(self, command: Command, known: Session | None = None) -> tuple[Session, list[Event]]:
        """The session, and the events that `execute` would append now. It appends nothing.

        known: as for `execute`; it saves the read if the command fits.
        Raises the errors of `decide`, Unavailable.
        """
        if known is not None and (events := _decided_on(known, command)):
            return known, events
        session = await self.advance(known or initial(subjects.session_id(command.session)))
        return session, decide(session, command)

    async def execute(self, command: Command, known: Session | None = None) -> Session:
        """Append the event that the command decides, and return the session after it. Safe to repeat.

        known: a fold of the same session to go on from; it may be stale.
        Raises the errors of `decide`, Unavailable (repeat with the same `cause`), Conflict (log.busy).
        """
        session = known or initial(subjects.session_id(command.session))
        is_unread = known is not None

        async def attempt() -> Session:
            # After a Conflict: our event with a lost ack, or another writer's. Reading on tells which.
            nonlocal session, is_unread
            events = _decided_on(session, command) if is_unread else []
            is_unread = False
            if not events:
                session = await self.advance(session)
                events = decide(session, command)
            return await self._append(session, events[0]) if events else session

        return await retry_conflicts(lambda: retry(attempt, LOG_OUTAGE), f"session {command.session}")

    async def _append(self, session: Session, event: Event) -> Session:
        body = stored_bytes(event)
        with self._span(session, event) as span:
            carried = {"traceparent": span.traceparent} if span.traceparent else None
            seq = await self._jet.append(subjects.lifecycle(session.id), body, session.last_seq, carried)
        log.info("appended", session=session.id, type=event.type, seq=seq, cause=event.cause)
        return evolve(session, event, seq)

    def _span(self, session: Session, event: Event) -> Span:
        """The span of one event, in the trace of the session. It links the request that asked for it."""
        tracer = self.tracer
        if not tracer.on:
            return NO_SPAN
        uid, name = event.uid if isinstance(event, Created) else session.uid, SPAN.format(event.type)
        if isinstance(event, Created):
            span = tracer.span(name, trace=uid, key=SESSION_KEY)
        else:
            span = tracer.span(name, parent=tracer.context(uid, SESSION_KEY))
        span.link(CURRENT.get())
        span.set({span_facts.SESSION: session.id})
        if isinstance(event, Transition):
            span.set({"lucid.trigger": event.trigger, "lucid.state": event.to_state})
        return span


def _decided_on(session: Session, command: Command) -> list[Event]:
    """The events of a command on a fold that may be stale; empty: only the log can tell."""
    try:
        return decide(session, command)
    except Rejected:
        return []
