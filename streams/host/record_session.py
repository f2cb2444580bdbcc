"""Records one session from a source, from its first block to its end, and ends it after every failure.

1. The recording never waits for its view: the methods of a RecordingView return at once and raise nothing.
2. The source is asked to end when the person asks (`stop`), or when the session is ended elsewhere. After an
   EndRequested the host sends the blocks that it has read, and no `final`: the platform writes the end.
3. While the session is paused, the source is not read. Blocks read before the pause are sent before it; a
   read that was under way is sent after it.
4. After a failure the blocks read are sent, a gap gives the reason of the missing rest, and `final` follows.
   If `final` cannot be sent, or the recording is cancelled, the platform is asked to end the session. If
   nobody answers, the view shows it.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from schemas import subjects
from schemas.config.logs import logger
from schemas.errors import LucidError, NoSpace, Unavailable
from schemas.events.session import EndRequested, State, Transition
from schemas.ports import Jet, Source
from schemas.ports.messages import Message
from schemas.types import ForcedEnd
from streams.control.client import call
from streams.event_store.session_log import read_event
from streams.host.publisher import Grant, Progress, Publisher
from streams.host.send_quota import SendQuota
from streams.host.source_feed import publish
from streams.scheduling.retry import HOST_ABORT, retry

log = logger("lucid.record")

ENDING = frozenset({State.STOPPING, State.STOPPED, State.CLEANUP, State.DESTROYED})
PAUSING = frozenset({State.PAUSING, State.PAUSED})
HOST_LOST: ForcedEnd = "host_lost"
FAILED = "recorder.failed"
"""Reason of the gap after a failure of the recorder itself."""


class RecordingView(Protocol):
    """Shows a recording to a person. Its methods return at once and raise nothing."""

    def show(self, progress: Progress) -> None:
        """The publisher's progress has changed."""

    def ending(self, here: bool) -> None:
        """The recording is to end. here: asked for by the person at this recorder."""

    def unended(self) -> None:
        """The session could not be ended: neither its host nor the platform could do it."""


@dataclass(frozen=True, slots=True)
class Sent:
    """The progress of a recording that has ended. broken: why it is not complete."""

    progress: Progress
    broken: LucidError | None = None
    unheard: bool = False
    """The platform has ended it because it did not hear this host."""


async def record_session(
    jet: Jet, grant: Grant, source: Source, encoder: str, view: RecordingView, stop: asyncio.Event
) -> Sent:
    """Send the whole source, then `final`. The session is ended in every case.

    Raises the error that kept it from ending in order, after the platform was asked to end it.
    """
    whole, forced = False, ""

    def end(by_platform: str) -> None:
        nonlocal forced
        forced = by_platform
        source.stop()
        publisher.stop_waiting()
        if not whole:
            view.ending(stop.is_set())

    try:
        publisher = Publisher(jet, grant, view.show, quota=SendQuota.of(jet, grant.session, grant.credential))
        stopping = asyncio.create_task(_watch(jet, publisher, stop, end))
        try:
            broken = await _send_all(source, publisher, encoder)
            whole = True  # from now on our own `final` stops the session
            if forced:
                return Sent(await publisher.leave(), broken, forced == HOST_LOST)
            return await _finish(publisher, broken)
        finally:
            await cancelled(stopping)
            await publisher.close()
    except asyncio.CancelledError:
        await _abort(jet, grant, "interrupted", view)
        raise
    except LucidError as error:
        await _abort(jet, grant, error.code, view)
        raise
    except Exception:
        await _abort(jet, grant, FAILED, view)
        raise


async def cancelled(*tasks: "asyncio.Task[Any]") -> None:
    """Cancel the tasks, and return when they have ended."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _send_all(source: Source, publisher: Publisher, encoder: str) -> LucidError | None:
    """Send all that the source gives. Returns the error that broke it off; None: it came to its end."""
    try:
        await publish(aiter(source), publisher, encoder)
    except LucidError as error:
        return error
    except Exception:
        log.exception("recording_failed", session=publisher.grant.session)
        await publisher.break_off(FAILED)
        raise
    return None


async def _finish(publisher: Publisher, broken: LucidError | None) -> Sent:
    """Send the ending. Raises the error that refused it for good."""
    try:
        done = await (publisher.finish() if broken is None else publisher.break_off(broken.code))
    except NoSpace as error:  # the ending is sent
        return Sent(publisher.progress, broken or error)
    return Sent(done, broken)


async def _abort(jet: Jet, grant: Grant, reason: str, view: RecordingView) -> None:
    """Ask the platform to end a session that its host cannot end. reason: a label."""
    try:
        request = {"session": grant.session, "reason": reason}
        abort = partial(call, jet, "abort", request, credential=grant.credential)
        await retry(abort, HOST_ABORT, on_error=lambda _: None)
    except Unavailable:
        view.unended()
    except LucidError:  # refused: it has ended meanwhile
        return


async def _watch(jet: Jet, publisher: Publisher, stop: asyncio.Event, end: Callable[[str], None]) -> None:
    """Pause with the session; call `end` when the person asks or the session is ended elsewhere.

    end: takes the kind of the end that the platform writes itself; empty: this host writes it.
    """
    session = publisher.grant.session

    async def elsewhere() -> str:
        events = jet.follow(subjects.LIFECYCLE, [subjects.lifecycle(session)])
        try:
            async for item in events:
                event = read_event(item.data) if isinstance(item, Message) else None
                if isinstance(event, EndRequested):
                    return event.end
                if isinstance(event, Transition):
                    if event.to_state in ENDING:
                        return ""
                    if event.to_state in PAUSING:
                        publisher.pause_sending(event.reason)
                    elif event.to_state == State.ACTIVE:  # an error does not end a pause
                        publisher.resume_sending()
            return ""
        finally:
            await events.close()

    asked, heard = asyncio.create_task(stop.wait()), asyncio.create_task(elsewhere())
    try:
        await asyncio.wait({asked, heard}, return_when=asyncio.FIRST_COMPLETED)
        by_platform = ""
        try:
            by_platform = heard.result() if heard.done() else ""
        except Exception as error:
            log.error("session_unheard", session=session, error=error)
            await asked  # the person can still end it
        end(by_platform)
    finally:
        await cancelled(asked, heard)
