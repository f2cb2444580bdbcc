"""The routes about a whole service: its running sessions, and how well its chunks compress."""

from datetime import UTC, datetime

from fastapi import APIRouter, Request

from schemas.api.responses import CompressionStatistics, ServiceStatus
from streams.api.commands import Sending
from streams.api.problems import RESPONSES
from streams.api.routes.sessions import Parts

router = APIRouter(tags=["status"], responses=RESPONSES)
compression = APIRouter(tags=["recordings"], responses=RESPONSES)


@router.get("/status", response_model=ServiceStatus)
async def show_status(request: Request, parts: Parts, send: Sending) -> ServiceStatus:
    """Since when the service runs, and how many sessions there are in each state."""
    totals = await send.ask("totals", {})
    began: datetime = request.app.state.began
    return ServiceStatus(
        service=parts.service,
        version=parts.version,
        started_at=began,
        uptime_s=round((datetime.now(UTC) - began).total_seconds(), 3),
        sessions={state: sums["sessions"] for state, sums in totals["states"].items()},
        recordings_here=sum(one.state in ("starting", "recording") for one in parts.recordings_here.all()),
        behind=totals["behind"],
    )


@compression.get("/compression/stats", response_model=CompressionStatistics)
async def show_compression(parts: Parts, send: Sending) -> CompressionStatistics:
    """The plain and the stored bytes of this host's sealed sessions."""
    host = parts.recordings_here.host
    totals = await send.ask("totals", {"host": host, "sealed": True})
    plain, stored = totals["plain_bytes"], totals["sealed_bytes"]
    return CompressionStatistics(
        host=host,
        sessions=totals["sessions"],
        chunks=totals["chunks"],
        bytes=plain,
        stored_bytes=stored,
        compression_ratio=round(plain / stored, 4) if stored else None,
    )
