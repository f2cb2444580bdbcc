"""The routes of session-api: sessions, their recording and their pipeline."""

import asyncio
from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Body, Depends, Header, Query, Response

from schemas.api.requests import FilterQuery, ListQuery, Reasoned, SessionCreate, SessionUpdate
from schemas.api.responses import PipelineShown, SessionPage, SessionShown, Statistics, Sums, SystemStatistics
from schemas.errors import Unconditional
from schemas.events.session import State
from streams.api.answers import LOCATION, PROBLEMS, Answers, header, problem
from streams.api.asked_sessions import filtered, listed, opened, updated
from streams.api.commands import Asking, Sending
from streams.api.looked import SessionId
from streams.api.parts import ApiParts, given_parts
from streams.api.shapes import pipeline_shown, session_shown, statistics

PREFIX = "/api/v1/sessions"
IfMatch = Annotated[
    str | None,
    Header(
        pattern=r'^(\*|(W/)?"?[0-9]{1,15}"?)$',
        description="The ETag that GET told, or `*`: any. A change without it is refused.",
    ),
]
ReasonQuery = Annotated[str, Query(pattern=r"^[A-Za-z0-9_.-]{1,100}$", description="A short code.")]
Asked = Annotated[Reasoned | None, Body()]
FIRST = 1
"""The revision of the members that a session is created with."""
REVISION = {"ETag": header("Of the descriptive members; none if they are hidden or erased.", always=False)}
TOLD: Answers = {200: {"headers": REVISION}}
MADE: Answers = {201: {"headers": {**LOCATION, **REVISION}}}
STALE: Answers = {
    412: problem("The session has changed: read it again."),
    428: problem("There is no If-Match."),
}
Parts = Annotated[ApiParts, Depends(given_parts)]

router = APIRouter(prefix=PREFIX, tags=["sessions"], responses=PROBLEMS)


@router.post("", status_code=201, response_model=SessionShown, responses=MADE)
async def create_session(
    asked: SessionCreate, send: Sending, parts: Parts, response: Response
) -> SessionShown:
    """Create a session. Its bytes come over HTTP, from the platform's own upload host."""
    body = opened(asked, asked.id or send.new_session_id(), parts.settings)
    made = await send.send("open", body)
    # A repeated request may find that the members were changed meanwhile, or are erased.
    first = made["revision"] == FIRST and made["state"] == State.CREATED
    found = {**body, "revision": FIRST} if first else await send.details_after(made["session"])
    shown = session_shown(made, found)
    response.headers["Location"] = f"{PREFIX}/{shown.id}"
    return _tagged(response, shown, found)


@router.get("", response_model=SessionPage)
async def list_sessions(asking: Asking, wanted: Annotated[ListQuery, Query()]) -> SessionPage:
    """A page of sessions that fit, the newest first unless it is asked otherwise."""
    page = await asking.ask("list", listed(wanted))
    return SessionPage(
        sessions=[session_shown(one) for one in page["sessions"]],
        next=page["cursor"] or None,
        behind=page["behind"],
    )


@router.get("/statistics", response_model=SystemStatistics)
async def show_system_statistics(asking: Asking, wanted: Annotated[FilterQuery, Query()]) -> SystemStatistics:
    """The sums over all sessions that fit, and by state."""
    totals = await asking.ask("totals", filtered(wanted))
    return SystemStatistics(
        **_summed(totals),
        states={state: Sums(**_summed(sums)) for state, sums in totals["states"].items()},
        behind=totals["behind"],
    )


@router.get("/{session_id}", response_model=SessionShown, responses=TOLD)
async def show_session(session_id: SessionId, asking: Asking, response: Response) -> SessionShown:
    """One session, as its log tells. No condition counts here: the state of a session is asked for."""
    shown, found = await asyncio.gather(asking.show(session_id), asking.details(session_id))
    return _tagged(response, session_shown(shown, found), found)


@router.put("/{session_id}", response_model=SessionShown, responses={**TOLD, **STALE})
async def update_session(
    session_id: SessionId,
    asked: SessionUpdate,
    send: Sending,
    response: Response,
    if_match: IfMatch = None,
) -> SessionShown:
    """Change the descriptive members of a session. `If-Match` names the state that the caller saw."""
    made = await send.send("update", updated(asked, session_id, seen_revision(if_match)))
    found = await send.details_after(session_id)
    return _tagged(response, session_shown(made, found), found)


@router.delete("/{session_id}", response_model=SessionShown)
async def destroy_session(
    session_id: SessionId, send: Sending, reason: ReasonQuery = "operator"
) -> SessionShown:
    """Destroy a session for good: its key first, then its data and its descriptive members."""
    return session_shown(await send.send("destroy", {"session": session_id, "reason": reason}))


@router.post("/{session_id}/start", response_model=SessionShown)
async def start_recording(session_id: SessionId, send: Sending) -> SessionShown:
    """Start the recording."""
    return await commanded(send, "start", {"session": session_id})


@router.post("/{session_id}/stop", response_model=SessionShown)
async def stop_recording(session_id: SessionId, send: Sending, asked: Asked = None) -> SessionShown:
    """Stop the recording: all fragments sent are processed and sealed. A stopped one cannot go on."""
    return await commanded(send, "stop", reasoned(session_id, asked))


@router.post("/{session_id}/pause", response_model=SessionShown)
async def pause_recording(session_id: SessionId, send: Sending, asked: Asked = None) -> SessionShown:
    """Pause the recording: nothing new is recorded until it goes on."""
    return await commanded(send, "pause", reasoned(session_id, asked))


@router.post("/{session_id}/resume", response_model=SessionShown)
async def resume_recording(session_id: SessionId, send: Sending, asked: Asked = None) -> SessionShown:
    """Go on with a paused recording."""
    return await commanded(send, "resume", reasoned(session_id, asked))


@router.get("/{session_id}/pipeline", response_model=PipelineShown)
async def show_pipeline(session_id: SessionId, asking: Asking) -> PipelineShown:
    """How far the six stages are."""
    return pipeline_shown(await asking.show(session_id))


@router.post("/{session_id}/pipeline/pause", response_model=PipelineShown)
async def pause_pipeline(session_id: SessionId, send: Sending, asked: Asked = None) -> PipelineShown:
    """Pause the pipeline: fragments wait in the stream."""
    return pipeline_shown(await send.send("pause_pipeline", reasoned(session_id, asked)))


@router.post("/{session_id}/pipeline/resume", response_model=PipelineShown)
async def resume_pipeline(session_id: SessionId, send: Sending, asked: Asked = None) -> PipelineShown:
    """Go on with a paused pipeline: it catches up."""
    return pipeline_shown(await send.send("resume_pipeline", reasoned(session_id, asked)))


@router.get("/{session_id}/statistics", response_model=Statistics)
async def show_statistics(session_id: SessionId, asking: Asking) -> Statistics:
    """The numbers of one session."""
    return statistics(await asking.show(session_id))


def seen_revision(if_match: str | None) -> int | None:
    """The revision that If-Match names; None: any. Raises Unconditional (request.unconditional)."""
    if if_match is None:
        raise Unconditional(
            "a change needs the header If-Match: a change that its caller has not seen is never overwritten",
            code="request.unconditional",
            hint="send the ETag of GET in If-Match, or `*` to change the session as it is",
        )
    return None if if_match == "*" else int(if_match.removeprefix("W/").strip('"'))


def _tagged(response: Response, shown: SessionShown, found: Mapping[str, Any] | None) -> SessionShown:
    """The session with its ETag: the revision of its descriptive members, weak for all others.

    found: those members; None: they are erased, or hidden from the caller. Then there is no ETag.
    """
    if found is not None:
        response.headers["ETag"] = f'W/"{shown.revision}"'
    return shown


def _summed(totals: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "sessions": totals["sessions"],
        "chunks": totals["chunks"],
        "bytes": totals["plain_bytes"],
        "stored_bytes": totals["sealed_bytes"],
        "duration_s": totals["duration_us"] / 1e6,
    }


def reasoned(session_id: str, asked: Reasoned | None) -> dict[str, Any]:
    """The body of a command with its reason."""
    return {"session": session_id, "reason": (asked or Reasoned()).reason}


async def commanded(send: Sending, name: str, body: Mapping[str, Any]) -> SessionShown:
    """The session after a command; without its descriptive members if they cannot be read now."""
    made = await send.send(name, body)
    return session_shown(made, await send.details_after(made["session"]))
