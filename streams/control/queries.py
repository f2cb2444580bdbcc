"""Answers questions about the platform itself: `ping`, `room`, `scrub`. `scrub_now` begins a check,
`scrub_acknowledge` ends the sound of alarms.
"""

from collections import Counter
from dataclasses import dataclass
from typing import Protocol

from handlers.retention.space import send_quota_bytes
from schemas import subjects
from streams.control.outcomes import Outcomes
from streams.control.questions import Body, Questions
from streams.control.running import Running
from streams.control.session_quota import SessionQuota


class Scrubbing(Protocol):
    """The scrub of this process (streams/evidence/scrub.py)."""

    async def asked(self, session: str, *, now: bool) -> Body:
        """The state of the scrub. session: check it next. now: begin a pass."""

    async def acknowledge(self, session: str, who: str) -> Body:
        """Acknowledge the alarms of a session, or (empty) those of streams."""


@dataclass(frozen=True, slots=True)
class Queries:
    """One for each process that answers commands."""

    questions: Questions
    quota: SessionQuota
    outcomes: Outcomes
    scrubbing: Scrubbing
    running: Running

    async def ping(self, body: Body) -> Body:
        """That commands are answered: a service answers none before it knows every open session."""
        return {}

    async def scrub(self, body: Body) -> Body:
        """The state of the scrub, and its findings."""
        return await self.scrubbing.asked("", now=False)

    async def scrub_now(self, body: Body) -> Body:
        """Begin a pass, or check one session next. The answer does not wait for its end."""
        session = str(body.get("session", ""))
        if session:
            subjects.session_id(session)
        return await self.scrubbing.asked(session, now=not session)

    async def scrub_acknowledge(self, body: Body) -> Body:
        """Acknowledge the alarms of one session; without a session: those of streams."""
        session = str(body.get("session", ""))
        if session:
            subjects.session_id(session)
        return await self.scrubbing.acknowledge(session, str(body.get("who", "")))

    async def room(self, body: Body) -> Body:
        """How many bytes of data a host may send before it asks again, into the shard of its session.

        sending: its bytes under way. session: older hosts do not name it, and get the least quota of all.
        """
        recordings, sending = self.questions.recordings, int(body.get("sending", 0))
        running = Counter(map(recordings.stream_of, self.quota.places.running()))
        streams = recordings.streams
        if "session" in body:
            streams = (recordings.stream_of(subjects.session_id(str(body["session"]))),)
        quotas = []
        for stream in streams:
            info = await recordings.info(stream)
            data = send_quota_bytes(info.bytes + sending, info.max_bytes, running[stream])
            quotas.append({"used": info.bytes, "limit": info.max_bytes, "data": data})
        return min(quotas, key=lambda quota: (quota["data"], -quota["used"]))
