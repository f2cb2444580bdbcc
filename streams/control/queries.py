"""Answers questions about sessions and space: `show`, `list`, `room`, `ping`. They change nothing."""

import asyncio
from collections import Counter
from dataclasses import dataclass
from typing import Any

from handlers.lifecycle.session import Session
from handlers.lifecycle.view import session_details
from handlers.retention.space import send_quota_bytes
from schemas import subjects
from schemas.errors import Rejected
from schemas.events.chunk import Ended, Recorded
from schemas.format.fragment import MAIN, parse
from streams.control.outcomes import Outcomes
from streams.control.session_quota import SessionQuota
from streams.event_store.chunk_log import last_recorded
from streams.event_store.dead_letters import absent_session, dead_letter_count, dead_letters
from streams.event_store.event_store import EventStore
from streams.projections.session_list import SessionList

Body = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Queries:
    """One for each process that answers commands."""

    store: EventStore
    listed: SessionList
    quota: SessionQuota
    outcomes: Outcomes

    async def ping(self, body: Body) -> Body:
        """That commands are answered: a service answers none before it knows every open session."""
        return {}

    async def show(self, body: Body) -> Body:
        """One session, and the progress of its chunks."""
        session = await self.session(body)
        jet, stored = self.store.jet, subjects.chunk(subjects.STORED, session.id)
        # Each question is a round trip: they are asked at once.
        last, counts, sent, refused, dead = await asyncio.gather(
            last_recorded(jet, session.id),
            jet.subject_counts(subjects.CHUNKS, stored),
            self._sent(session),
            dead_letters(jet, session.id),
            dead_letter_count(jet, session.id),
        )
        state = last[1].state if last else None
        recorded = state.next_index if state else 0
        taken = next((track.next_seq for track in state.tracks if track.id == MAIN), 0) if state else 0
        return {
            **session_details(session),
            "duration_us": session.duration_us or _duration_so_far(session, last[1] if last else None),
            **self.outcomes.waits_for(session.id),
            "recorded": recorded,
            "fragments": state.fragments if state else 0,
            "plain": state.plain if state else 0,
            "missing": sum(track.next_seq for track in state.tracks) - state.fragments if state else 0,
            "waiting": max(sent - taken, 0),
            "equivocations": state.equivocations if state else 0,
            "host_gaps": state.host_gaps if state else 0,
            "host_gap_reason": state.host_gap_reason if state else "",
            # The events of a sealed session go with its source; a seal means that all were stored.
            "stored": recorded - len(session.losses) if session.sealed else counts.get(stored, 0),
            "refused": refused,
            "dead": dead,
        }

    async def list_page(self, body: Body) -> Body:
        """A page of all sessions, the newest first. state, host, text: only those. after: a page's `next`."""
        return await self.listed.page(body)

    async def totals(self, body: Body) -> Body:
        """Sums over all sessions that fit, and by state. The same conditions as those of `list`."""
        return await self.listed.totals(body)

    async def room(self, body: Body) -> Body:
        """How many bytes of data a host may send before it asks again, into the shard of its session.

        sending: its bytes under way. session: older hosts do not name it, and get the least quota of all.
        """
        recordings, sending = self.store.recordings, int(body.get("sending", 0))
        running = Counter(map(recordings.stream_of, self.quota.running()))
        streams = recordings.streams
        if "session" in body:
            streams = (recordings.stream_of(subjects.session_id(str(body["session"]))),)
        quotas = []
        for stream in streams:
            info = await recordings.info(stream)
            data = send_quota_bytes(info.bytes + sending, info.max_bytes, running[stream])
            quotas.append({"used": info.bytes, "limit": info.max_bytes, "data": data})
        return min(quotas, key=lambda quota: (quota["data"], -quota["used"]))

    async def _sent(self, session: Session) -> int:
        """Fragments of track 0 up to the last one in the stream; those after the checkpoint wait."""
        created = session.created
        if session.sealed or created is None:
            return 0
        last = await self.store.recordings.last(subjects.recording(created.host, session.id))
        if last is None:
            return 0
        try:
            return parse(last.data).header.seq + 1
        except Rejected:  # of a stranger, under this name
            return 0

    async def session(self, body: Body) -> Session:
        """The session that a request names. Raises NotFound (session.absent)."""
        session = await self.store.log.load(str(body.get("session", "")))
        if session.created is None:
            raise await absent_session(self.store.recordings, session.id)
        return session


def _duration_so_far(session: Session, last: Recorded | Ended | None) -> int:
    """From the start of a running session to its last recorded chunk, by the host's clock; 0: none."""
    if session.ended_us or not session.started_us or not isinstance(last, Recorded):
        return 0
    return max(last.last_us - session.started_us, 0)
