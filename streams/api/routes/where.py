"""The route that tells where each chunk of a session is."""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query

from schemas.api.where import ChunkError, ChunkPlace, WhereShown
from streams.api.answers import PROBLEMS
from streams.api.commands import Asking
from streams.api.looked import SessionId
from streams.api.routes.sessions import PREFIX
from streams.api.shapes import time_of
from streams.control.where import PAGE_MOST

After = Annotated[int | None, Query(ge=0, lt=2**53, description="Only chunks after this one.")]
Limit = Annotated[int, Query(ge=1, le=PAGE_MOST)]
Unstored = Annotated[bool, Query(description="Only chunks that are neither stored nor lost.")]

router = APIRouter(prefix=PREFIX, tags=["chunks"], responses=PROBLEMS)


@router.get("/{session_id}/where", response_model=WhereShown)
async def show_where(
    session_id: SessionId, asking: Asking, after: After = None, limit: Limit = 100, unstored: Unstored = False
) -> WhereShown:
    """Where each chunk is: its stage, tries, last error and trace, and when it will be stored."""
    first = -1 if after is None else after
    body = {"session": session_id, "after": first, "limit": limit, "unstored": unstored}
    return where_shown(await asking.ask("where", body))


def where_shown(found: Mapping[str, Any]) -> WhereShown:
    """The answer of the command `where`."""
    return WhereShown(
        session_id=found["session"],
        status=found["state"],
        sealed=found["sealed"],
        computed_at=_time(found["now_us"]),
        sequences=found["at"],
        recorded=found["recorded"],
        stages=found["stages"],
        waiting_fragments=found["waiting"],
        pending=found["pending"],
        lag_s=found["lag_us"] / 1e6,
        moved_at=_time(found["moved_us"]),
        chunk_s=found["chunk_us"] / 1e6 if found["chunk_us"] else None,
        expected_at=_time(found["expected_us"]),
        refused=found["dead_letters"],
        chunks=[_place(one) for one in found["chunks"]],
        next=found["next"],
    )


def _place(one: Mapping[str, Any]) -> ChunkPlace:
    return ChunkPlace(
        index=one["index"],
        stage=one["stage"],
        since=_time(one["since_us"]),
        run=one["run"],
        attempts=one["attempts"],
        busy=one["busy"],
        error=ChunkError(**one["error"]) if one["error"] else None,
        trace_id=one["trace_id"],
        expected_at=_time(one["expected_us"]),
    )


def _time(at_us: int | None) -> datetime | None:
    return time_of(at_us) if at_us else None
