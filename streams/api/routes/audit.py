"""The routes to the audit chain, and to the requests that a second person answers."""

from collections.abc import AsyncGenerator
from typing import Annotated, Literal

from fastapi import APIRouter, Body, Path, Query, Request, Response

from handlers.audit.siem import translated
from schemas.api.requests import AccessAsked, AccessQuery, Answered, AuditQuery
from schemas.api.responses import AccessPage, AccessShown, AuditPage
from streams.api.answers import LINES, PROBLEMS, of_stream
from streams.api.asked_sessions import audit_asked
from streams.api.auth import caller_of
from streams.api.commands import Asking, Sending
from streams.api.conditions import NO_STORE
from streams.api.routes.sessions import Parts
from streams.api.shapes import access_shown
from streams.api.transfers import Pieces, begun
from streams.event_store.audit_pages import chain_lines

RequestId = Annotated[str, Path(pattern=r"^[A-Za-z0-9_-]{1,100}\.[0-9a-f]{16}\.[1-9][0-9]{0,8}$")]

router = APIRouter(prefix="/api/v1", tags=["audit"], responses=PROBLEMS)


@router.get("/audit", response_model=AuditPage)
async def list_audit(asking: Asking, wanted: Annotated[AuditQuery, Query()]) -> AuditPage:
    """A page of the audit chain, the newest entry first unless it is asked otherwise."""
    page = await asking.ask("audit", audit_asked(wanted))
    return AuditPage(entries=page["entries"], next=page["next"] or None)


@router.get("/audit/export", response_class=Response, responses=of_stream(LINES))
async def export_audit(
    request: Request, parts: Parts, form: Literal["chain", "ocsf", "ecs"] = "chain"
) -> Response:
    """Every entry, one a line: as the chain holds it, or with the field names of OCSF or ECS."""

    async def entries() -> AsyncGenerator[bytes, None]:
        async for line in chain_lines(parts.jet):
            yield line if form == "chain" else translated(line, form)

    lines = parts.transfers.lines(caller_of(request).subject, entries())
    return Pieces(await begun(lines), 200, {"Cache-Control": NO_STORE}, LINES)


@router.post("/access-requests", status_code=201, response_model=AccessShown)
async def request_access(asked: AccessAsked, send: Sending) -> AccessShown:
    """Ask that a second person allows the caller to watch or export a session."""
    body = {"session": asked.session_id, "look": asked.look, "reason": asked.reason}
    return access_shown(await send.send("access_request", body))


@router.get("/access-requests", response_model=AccessPage)
async def list_access(asking: Asking, wanted: Annotated[AccessQuery, Query()]) -> AccessPage:
    """A page of requests, oldest first; without the permission to approve the caller's own ones."""
    body = {
        "session": wanted.session_id,
        "stage": wanted.stage,
        "after": wanted.after,
        "limit": wanted.limit,
    }
    page = await asking.ask("access_list", body)
    return AccessPage(requests=[access_shown(one) for one in page["requests"]], next=page["next"] or None)


@router.post("/access-requests/{request_id}/approve", response_model=AccessShown)
async def approve_access(
    request_id: RequestId, send: Sending, asked: Annotated[Answered | None, Body()] = None
) -> AccessShown:
    """Approve the request of another person. The grant ends by itself."""
    body = {"request": request_id, "reason": (asked or Answered()).reason}
    return access_shown(await send.send("access_approve", body))


@router.post("/access-requests/{request_id}/refuse", response_model=AccessShown)
async def refuse_access(
    request_id: RequestId, send: Sending, asked: Annotated[Answered | None, Body()] = None
) -> AccessShown:
    """Refuse a request, end a grant early, or take the own request back."""
    body = {"request": request_id, "reason": (asked or Answered()).reason}
    return access_shown(await send.send("access_refuse", body))
