"""The verb `lucid watch`: follows a session's chunks through the six stages."""

import asyncio
import json
from collections.abc import Coroutine
from contextlib import suppress
from typing import Annotated, Any, NoReturn

import typer

from schemas import subjects
from schemas.errors import Rejected
from schemas.events.session import State, Transition
from schemas.ports import Jet
from schemas.ports.messages import Message
from streams.cli import attach, output
from streams.cli.board import View
from streams.cli.output import JsonFlag
from streams.cli.running_view import watch_all
from streams.cli.wait_sealed import destroyed
from streams.event_store.session_log import SessionLog, read_event
from streams.host.record_session import cancelled


def watch(
    session: Annotated[str, typer.Argument(metavar="[SESSION]", help="Its name; without one: all.")] = "",
    follow: Annotated[bool, typer.Option("--follow/--no-follow", help="Wait for its end.")] = True,
    as_json: JsonFlag = False,
) -> None:
    """Follow a session's chunks through the six stages. --json: its events, one a line.

    Without SESSION: all sessions that are not finished, those in need first. --json: one object a second.
    """
    if not session:
        attach.run(watch_all(follow, as_json))
        return
    subjects.session_id(session)
    attach.run(_events(session, follow) if as_json else _board(session, follow))


async def _board(session: str, follow: bool) -> None:
    async with attach.attached() as jet:
        found = await SessionLog(jet).existing(session)
        view = View(jet, session)
        try:
            # a sealed session has no more events, and its old ones may be gone with its source
            if follow and not found.sealed and found.shredded is None:
                async with view.following() as following:
                    await _unless_destroyed(jet, session, view.complete(following))
            else:
                await view.read()
        finally:
            view.clear()
        if (found.sealed or found.shredded is not None) and not view.board.complete:
            is_now = "sealed" if found.shredded is None else "destroyed"
            output.say(f"{session} is {is_now}, and its events are gone with its source;")
            output.say(f"see lucid sessions show {session}")
            return
        output.say(*view.board.lines())


async def _events(session: str, follow: bool) -> None:
    filters = [subjects.chunk("*", session)]
    async with attach.attached() as jet:
        found = await SessionLog(jet).existing(session)
        if not follow or found.sealed or found.shredded is not None:
            async for message in jet.read_all(subjects.CHUNKS, filters[0]):
                output.emit(json.loads(message.data))
                if output.stdout_gone():
                    return
            return
        await _unless_destroyed(jet, session, _emit_to_end(jet, filters))


async def _emit_to_end(jet: Jet, filters: list[str]) -> None:
    follower = jet.follow(subjects.CHUNKS, filters)
    try:
        async for item in follower:
            if isinstance(item, Message):
                event = json.loads(item.data)
                output.emit(event)
                if event["type"].startswith("lucid.chunk.ended.") or output.stdout_gone():
                    return
    finally:
        await follower.close()


async def _unless_destroyed(jet: Jet, session: str, watching: Coroutine[Any, Any, None]) -> None:
    """Watch to the end. Raises RefusedByState (session.destroyed)."""
    both = asyncio.create_task(watching), asyncio.create_task(_destruction(jet, session))
    try:
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        for task in both:
            if task.done():
                task.result()
    finally:
        await cancelled(*both)


async def _destruction(jet: Jet, session: str) -> NoReturn:
    """Wait until the session is destroyed. Raises RefusedByState (session.destroyed)."""
    events = jet.follow(subjects.LIFECYCLE, [subjects.lifecycle(session)])
    try:
        async for item in events:
            event = None
            if isinstance(item, Message):
                with suppress(Rejected):  # one unreadable line does not end a watch
                    event = read_event(item.data)
            if isinstance(event, Transition) and event.to_state in (State.CLEANUP, State.DESTROYED):
                raise destroyed(session)
    finally:
        await events.close()
    raise AssertionError("a log that is followed has no end")
