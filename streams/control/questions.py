"""Answers questions about sessions: `show`, `where`, `details`, `list`, `totals`. They change nothing.

1. Every process over the same stores gives the same answers: the command service, and those that serve HTTP.
2. One session's truth comes from its log. Lists and sums come from the read models.
3. The conductor alone knows which error delays a session: `delay_of` asks it.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from handlers.crypto.details import open_details
from handlers.lifecycle.session import Session
from handlers.lifecycle.view import session_details
from schemas import subjects
from schemas.events.chunk import Ended, Recorded
from schemas.events.details import Details
from schemas.format.fragment import MAIN
from streams.control.where import Where, WhereAsked
from streams.event_store.chunk_log import last_recorded
from streams.event_store.dead_letters import absent_session, dead_letter_count, dead_letters
from streams.event_store.recordings import Recordings
from streams.event_store.session_log import SessionLog
from streams.keys.held_keys import shredded
from streams.keys.keystore import KeyStore
from streams.projections.proven_times import ProvenTimes
from streams.projections.session_list import SessionList

Body = dict[str, Any]
DelayOf = Callable[[str], Awaitable[Body]]
"""The error that delays a session: code, message, hint. Empty: there is none."""


@dataclass(frozen=True, slots=True)
class Questions:
    """One for each process that answers them."""

    recordings: Recordings
    log: SessionLog
    keys: KeyStore
    listed: SessionList
    delay_of: DelayOf
    places: Where
    proven: ProvenTimes

    @property
    def handlers(self) -> dict[str, Callable[[Body], Awaitable[Body]]]:
        """Every question by its name."""
        return {name: partial(question, self) for name, question in QUESTIONS.items()}

    async def show(self, body: Body) -> Body:
        """One session, and the progress of its chunks.

        waiting: false leaves out how many fragments wait, for which the newest one is read as a whole.
        """
        counts_waiting = body.get("waiting") is not False
        session = await self.session(body)
        jet, stored = self.recordings.jet, subjects.chunk(subjects.STORED, session.id)
        # Each question is a round trip: they are asked at once.
        last, counts, sent, refused, dead, delay = await asyncio.gather(
            last_recorded(jet, session.id),
            jet.subject_counts(subjects.CHUNKS, stored),
            self.recordings.sent(session) if counts_waiting else _nothing(),
            dead_letters(jet, session.id),
            dead_letter_count(jet, session.id),
            self.delay_of(session.id),
        )
        state = last[1].state if last else None
        recorded = state.next_index if state else 0
        taken = next((track.next_seq for track in state.tracks if track.id == MAIN), 0) if state else 0
        return {
            **session_details(session),
            "duration_us": session.duration_us or _duration_so_far(session, last[1] if last else None),
            **({"waits_for": delay} if delay else {}),
            "recorded": recorded,
            "fragments": state.fragments if state else 0,
            "plain": state.plain if state else 0,
            "missing": sum(track.next_seq for track in state.tracks) - state.fragments if state else 0,
            **({"waiting": max(sent - taken, 0)} if counts_waiting else {}),
            "equivocations": state.equivocations if state else 0,
            "host_gaps": state.host_gaps if state else 0,
            "host_gap_reason": state.host_gap_reason if state else "",
            # The events of a sealed session go with its source; a seal means that all were stored.
            "stored": recorded - len(session.losses) if session.sealed else counts.get(stored, 0),
            "refused": refused,
            "dead": dead,
            "proven_us": await self.proven.of(session),
        }

    async def where(self, body: Body) -> Body:
        """Where each chunk of one session is."""
        asked, session = WhereAsked.model_validate(body), await self.session(body)
        delay = await self.delay_of(session.id)
        return {**await self.places.page(session, asked), **({"waits_for": delay} if delay else {})}

    async def details(self, body: Body) -> Body:
        """The personal fields of a session, opened. Revision 0: it has none."""
        session = await self.session(body)
        answer: dict[str, Any] = {"session": session.id, "revision": session.revision, "details": {}}
        if session.revision:
            answer["details"] = (await self.opened(session)).model_dump(mode="json")
        return answer

    async def opened(self, session: Session) -> Details:
        """The personal fields of a session; the defaults: it has none. Raises RefusedByState (shredded)."""
        if not session.revision:
            return Details()
        async with self.keys.using(session.uid, session.key_id) as held:
            if held is None:
                raise shredded(session.uid)
            found = open_details(held.keys.dek, session.uid, session.revision, session.details)
            await self.keys.check(held)
        return found

    async def list_page(self, body: Body) -> Body:
        """A page of all sessions, the newest first. state, host, text: only those. after: a page's `next`."""
        return await self.listed.page(body)

    async def totals(self, body: Body) -> Body:
        """Sums over all sessions that fit, and by state. The same conditions as those of `list`."""
        return await self.listed.totals(body)

    async def session(self, body: Body) -> Session:
        """The session that a request names. Raises NotFound (session.absent)."""
        session = await self.log.load(str(body.get("session", "")))
        if session.created is None:
            raise await absent_session(self.recordings, session.id)
        return session


QUESTIONS: Mapping[str, Callable[[Questions, Body], Awaitable[Body]]] = {
    "show": Questions.show,
    "where": Questions.where,
    "details": Questions.details,
    "list": Questions.list_page,
    "totals": Questions.totals,
}
"""By name. None of them leaves an entry in the audit chain (auditor.py)."""


async def _nothing() -> int:
    return 0


def _duration_so_far(session: Session, last: Recorded | Ended | None) -> int:
    """From the start of a running session to its last recorded chunk, by the host's clock; 0: none."""
    if session.ended_us or not session.started_us or not isinstance(last, Recorded):
        return 0
    return max(last.last_us - session.started_us, 0)
