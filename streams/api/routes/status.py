"""The routes about a whole service: its running sessions, and how well its chunks compress."""

from datetime import UTC, datetime

from fastapi import APIRouter, Request

from schemas.api.service import CompressionStatistics, Dependency, RoleStatus, ServiceStatus
from streams.api.answers import PROBLEMS
from streams.api.commands import Asking
from streams.api.dependencies import OK
from streams.api.routes.sessions import Parts

router = APIRouter(tags=["status"], responses=PROBLEMS)
compression = APIRouter(tags=["recordings"], responses=PROBLEMS)
OTHERS_S = 1.0
"""How old the health of another service may be."""


@router.get("/status", response_model=ServiceStatus)
async def show_status(request: Request, parts: Parts, asking: Asking) -> ServiceStatus:
    """Since when the service runs, and how many sessions there are in each state."""
    totals = await asking.ask("totals", {})
    began: datetime = request.app.state.began
    others: dict[str, Dependency] = await request.app.state.others.states(OTHERS_S)
    return ServiceStatus(
        service=parts.service,
        version=parts.version,
        started_at=began,
        uptime_s=round((datetime.now(UTC) - began).total_seconds(), 3),
        sessions={state: sums["sessions"] for state, sums in totals["states"].items()},
        recordings_here=sum(one.state in ("starting", "recording") for one in parts.recordings_here.all()),
        behind=totals["behind"],
        services={
            role: RoleStatus(url=url, health=others[role].state if role in others else OK)
            for role, url in parts.urls.items()
        },
    )


@compression.get("/compression/stats", response_model=CompressionStatistics)
async def show_compression(parts: Parts, asking: Asking) -> CompressionStatistics:
    """The plain and the stored bytes of this host's sealed sessions."""
    host = parts.recordings_here.host
    totals = await asking.ask("totals", {"host": host, "sealed": True})
    plain, stored = totals["plain_bytes"], totals["sealed_bytes"]
    return CompressionStatistics(
        host=host,
        sessions=totals["sessions"],
        chunks=totals["chunks"],
        bytes=plain,
        stored_bytes=stored,
        compression_ratio=round(plain / stored, 4) if stored else None,
    )
