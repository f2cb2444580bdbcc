"""Answers how all running sessions are: those that need attention first, with the stages of their chunks.

1. A session in ERROR, or one that an error delays, comes first; then the one that waits longest.
2. Only the sessions of the answer are asked for their stages: the others cost two numbers each.
"""

import asyncio
from collections import Counter
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from handlers.lifecycle.session import Session
from schemas.events.session import State
from streams.control.outcomes import Outcomes
from streams.control.where import Where
from streams.event_store.event_store import EventStore
from streams.projections.running_chunks import Counts, RunningChunks

Body = dict[str, Any]
ROWS_MOST = 200
LOOKS_AT_ONCE = 8


class RunningAsked(BaseModel):
    """The body of the command `running`."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    limit: int = Field(default=20, ge=1, le=ROWS_MOST)
    opened_by: str = Field(default="", max_length=100)
    """Label of a person: only sessions that the person opened."""


class Running:
    """One for each process that answers commands."""

    def __init__(self, store: EventStore, outcomes: Outcomes, where: Where) -> None:
        self._store, self._outcomes, self._where = store, outcomes, where
        self._chunks = RunningChunks(store.jet)
        self._lock = asyncio.Lock()

    async def page(self, body: Body) -> Body:
        """The running sessions, and sums over all of them."""
        asked = RunningAsked.model_validate(body)
        sessions = [
            one
            for one in self._store.directory.sessions()
            if one.created is not None and asked.opened_by in ("", one.owner)
        ]
        async with self._lock:
            known = [one.id for one in self._store.directory.sessions() if not one.sealed]
            await self._chunks.look(known)
            now_us, counts = self._chunks.now_us, dict(self._chunks.counts)
        rows = [await self._row(one, counts.get(one.id) or Counts(), now_us) for one in sessions]
        rows.sort(key=_need)
        shown = rows[: asked.limit]
        by_id, slots = {one.id: one for one in sessions}, asyncio.Semaphore(LOOKS_AT_ONCE)

        async def look(row: Body) -> None:
            async with slots:
                await self._add_stages(row, by_id[row["session"]])

        await asyncio.gather(*(look(row) for row in shown))
        shown.sort(key=_need)  # by exact numbers now
        return {
            "now_us": now_us,
            "count": len(rows),
            "states": dict(Counter(row["state"] for row in rows)),
            "errors": sum(bool(row["error"]) for row in rows),
            "pending": sum(row["recorded"] - row["stored"] for row in rows if not row["sealed"]),
            "sessions": shown,
            "more": len(rows) - len(shown),
        }

    async def _row(self, session: Session, counts: Counts, now_us: int) -> Body:
        delay = await self._outcomes.delay_of(session.id)
        error = delay.get("code", "") or (session.reason if session.state == State.ERROR else "")
        pending = counts.recorded > counts.stored and not session.sealed
        since_us = counts.stored_us or counts.recorded_us
        return {
            "session": session.id,
            "state": session.state,
            "host": session.created.host if session.created else "",
            "sealed": session.sealed,
            "paused": session.pipeline_paused,
            "recorded": counts.recorded,
            "stored": min(counts.stored, counts.recorded),
            "lag_us": max(now_us - since_us, 0) if pending else 0,
            "error": error,
            "stages": {},
            "waiting": 0,
        }

    async def _add_stages(self, row: Body, session: Session) -> None:
        """Exact numbers of one session."""
        if session.sealed or session.state in (State.CREATED, State.CLEANUP, State.DESTROYED):
            return
        sums = await self._where.summary(session)
        row |= {
            "recorded": sums["recorded"],
            "stored": sums["stages"].get("stored", 0),
            "stages": {name: count for name, count in sums["stages"].items() if name != "stored"},
            "lag_us": sums["lag_us"],
            "waiting": sums["waiting"],
        }


def _need(row: Body) -> tuple[bool, int, str]:
    """Sorts sessions: with an error first, then by their lag."""
    return not row["error"], -row["lag_us"], row["session"]
