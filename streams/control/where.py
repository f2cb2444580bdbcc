"""Answers where each chunk of a session is: its stage, tries, last error, trace, and when it will be stored.

1. The answer is exact at one sequence of CHUNKS and one of DEAD, which it names.
2. The streams tell the stage. The worker that has the chunk tells how often it tried it; without an answer
   in form within ASK_S the tries are not known.
3. A sealed session is told from its log alone: every chunk that was not lost is stored.
"""

import asyncio
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from handlers.lifecycle.session import Session
from handlers.views.chunk_places import DEAD, LOST, STORED, ChunkPlaces, Place
from schemas import subjects
from schemas.config.logs import logger
from schemas.errors import LucidError
from schemas.events.session import State
from schemas.events.tries import Try, read_tries
from streams.event_store.recordings import Recordings
from streams.projections.session_places import PlacesOfSessions, SessionPlaces

Body = dict[str, Any]
PAGE_MOST = 1000
"""Chunks in one answer, at most 600 bytes each."""
ASK_S = 0.5
TEXT_MOST = 200
NO_TRY = Try()
RESTING = (State.ERROR, State.CLEANUP, State.DESTROYED)
"""States in which no chunk moves on."""

log = logger("lucid.control")


class WhereAsked(BaseModel):
    """The body of the command `where`."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    session: str
    after: int = Field(default=-1, ge=-1, lt=2**53)
    """Only chunks behind this one."""
    limit: int = Field(default=100, ge=1, le=PAGE_MOST)
    unstored: bool = False
    """Only chunks that are neither stored nor lost."""


class Where:
    """One for each process that answers commands."""

    def __init__(self, recordings: Recordings) -> None:
        self._recordings = recordings
        self._places = PlacesOfSessions(recordings.jet)

    async def page(self, session: Session, asked: WhereAsked) -> Body:
        """Where the chunks of one session are: sums by stage, and one page of chunks."""
        head = {
            "session": session.id,
            "uid": session.uid.hex(),
            "state": session.state,
            "host": session.created.host if session.created else "",
            "sealed": session.sealed,
        }
        if session.sealed or session.state in (State.CLEANUP, State.DESTROYED):
            self._places.forget(session.id)
            return {**head, **_settled(session, asked)}
        sent, tries = await asyncio.gather(self._recordings.sent(session), self._tries(session))
        async with self._places.of(session) as found:
            return {**head, **_moving(session, asked, found, tries), "waiting": _waiting(found, sent)}

    async def summary(self, session: Session) -> Body:
        """The sums of an unsealed session, without chunks."""
        sent = await self._recordings.sent(session)
        async with self._places.of(session) as found:
            return {**_sums(session, found), "waiting": _waiting(found, sent)}

    async def _tries(self, session: Session) -> Mapping[int, Try] | None:
        """The tries that the session's worker tells, by sequence in CHUNKS; None: they are not known."""
        try:
            subject = subjects.tries(subjects.partition(session.id))
            return read_tries(await self._recordings.jet.request(subject, b"", ASK_S))
        except (LucidError, TimeoutError) as error:
            log.info("tries_unknown", session=session.id, error=error)
            return None


def _waiting(found: SessionPlaces, sent: int) -> int:
    """Fragments in the stream that are in no chunk yet. The final fragment is in none."""
    return 0 if found.chunks.ended else max(sent - found.chunks.cut_to, 0)


def _sums(session: Session, found: SessionPlaces) -> Body:
    chunks, losses, now_us = found.chunks, session.losses, found.now_us
    pending = chunks.pending(losses)
    each_us = None if session.state in RESTING else chunks.chunk_us(now_us)
    oldest = next(iter(pending), None)  # chunks are recorded in the order of their index
    oldest_us = 0 if oldest is None else chunks.places[oldest].recorded_us
    return {
        "now_us": now_us,
        "at": {"chunks": found.at or 0, "dead": found.dead_at},
        "recorded": chunks.recorded,
        "stages": chunks.stages(losses),
        "pending": len(pending),
        "lag_us": max(now_us - oldest_us, 0) if oldest_us else 0,
        "moved_us": chunks.moved_us,
        "chunk_us": each_us,
        "expected_us": now_us + each_us * len(pending) if each_us is not None and pending else None,
        "dead_letters": found.dead_letters,
    }


def _moving(
    session: Session, asked: WhereAsked, found: SessionPlaces, tries: Mapping[int, Try] | None
) -> Body:
    chunks, losses, sums = found.chunks, session.losses, _sums(session, found)
    pending, each_us, now_us = chunks.pending(losses), sums["chunk_us"], sums["now_us"]
    indexes, more = chunks.page(losses, asked.after, asked.limit, unstored=asked.unstored)
    page = []
    for index in indexes:
        turn = pending.turn(index)
        expected_us = now_us + each_us * turn if each_us is not None and turn else None
        page.append({**_shown(chunks, index, losses, tries), "expected_us": expected_us})
    return {**sums, "chunks": page, **_behind(page, more)}


def _behind(page: list[Body], more: int) -> Body:
    return {"more": more, "next": page[-1]["index"] if more > 0 and page else None}


def _shown(
    chunks: ChunkPlaces, index: int, losses: Mapping[int, str], tries: Mapping[int, Try] | None
) -> Body:
    place, stage = chunks.places[index], chunks.shown(index, losses)
    attempts: int | None = None
    error = None
    if stage == DEAD and place.death is not None:
        death = place.death
        error = {"stage": death.stage, "code": death.code, "message": death.message[:TEXT_MOST]}
    elif stage == LOST:
        error = _loss(losses[index])
    elif stage != STORED and tries is not None:
        found = tries.get(place.seq, NO_TRY)
        attempts = found.deliveries
        error = {"stage": stage, "code": found.code, "message": found.text} if found.code else None
    return _row(
        index,
        stage,
        since_us=place.moved_us or None,
        run=place.run,
        attempts=attempts,
        busy=_busy(place, stage, tries),
        error=error,
        trace_id=place.trace or None,
    )


def _row(index: int, stage: str, **more: Any) -> Body:
    members = dict.fromkeys(("since_us", "attempts", "error", "trace_id", "expected_us"))
    return {"index": index, "stage": stage, "run": 0, "busy": False, **members, **more}


def _loss(reason: str) -> Body:
    return {"stage": "record", "code": reason, "message": "its loss was accepted"}


def _busy(place: Place, stage: str, tries: Mapping[int, Try] | None) -> bool:
    """Whether a worker has a job of the chunk now."""
    return bool(tries and stage not in (STORED, DEAD, LOST) and tries.get(place.seq, NO_TRY).busy)


def _settled(session: Session, asked: WhereAsked) -> Body:
    """A session of which no chunk moves any more: by its log alone."""
    count = session.data_chunks if session.sealed else 0
    gone = session.state in (State.CLEANUP, State.DESTROYED)
    lost = [index for index in session.losses if index < count]
    stages = {} if gone else {STORED: count - len(lost), LOST: len(lost)}
    first = asked.after + 1
    last = count if not gone and not asked.unstored else first
    page = [
        _row(index, LOST, error=_loss(session.losses[index]))
        if index in session.losses
        else _row(index, STORED)
        for index in range(first, min(last, first + asked.limit))
    ]
    return {
        "now_us": 0,
        "at": {"chunks": 0, "dead": 0},
        "recorded": count,
        "stages": {stage: number for stage, number in stages.items() if number},
        "pending": 0,
        "lag_us": 0,
        "moved_us": session.moved_us,
        "chunk_us": None,
        "expected_us": None,
        "dead_letters": 0,
        "chunks": page,
        **_behind(page, max(last - first, 0) - len(page)),
        "waiting": 0,
    }
