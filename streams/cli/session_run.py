"""Runs one recording for a verb: source → publisher, and the view beside it.

1. The recording never waits for the view: the view follows the events that everyone can follow. A terminal or
   pipe that takes no words any more stops no recording.
2. The source is asked to end when the person asks (`stop`), or when someone ends the session elsewhere. Whom
   the platform ends (EndRequested) sends what it has read, and no `final`: the end is the platform's.
3. While the session is paused, the source is not read. What it gave before was sent before; a read that was
   under way is sent after it.
4. Whatever breaks a recording off, its session is ended: what was read is sent, a gap says why the rest is
   missing, `final` follows. Where even that cannot be sent, or when it is cancelled, the platform is asked to
   end it. Where nobody answers, a note says what becomes of the session.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from schemas import subjects
from schemas.errors import LucidError, NoSpace, Rejected, Unavailable
from schemas.events.session import EndRequested, State, Transition
from schemas.ports import Jet, Source
from schemas.ports.messages import Message
from streams.cli import output
from streams.cli.board import Board, LiveBoard
from streams.control.client import call
from streams.event_store.session_log import read_event
from streams.host.publisher import Grant, Progress, Publisher
from streams.host.send_quota import SendQuota
from streams.host.source_feed import publish
from streams.roles.drivers import prepare_memory

log = logging.getLogger("lucid.record")

ENDING = frozenset({State.STOPPING, State.STOPPED, State.CLEANUP, State.DESTROYED})
RESTING = frozenset({State.PAUSING, State.PAUSED})
WORD_S = 30.0
"""Where no board is drawn, it is said so often why a recording waits."""
ABORT_S, AGAIN_S = 5.0, 0.5
"""How long, and how often, the platform is asked to end what cannot be ended here."""
FAILED = "recorder.failed"
"""Reason of the gap where the recorder itself has failed."""
ENDING_NOTE = "ending in order; Ctrl-C again gives up"
ENDED_NOTE = "its session is ended elsewhere; what was read is sent still"


class View:
    """The board of one session, kept by following its events, and drawn where there is a terminal."""

    def __init__(self, jet: Jet, session: str) -> None:
        self.board = Board()
        self.progress = Progress()
        self._jet, self._session = jet, session
        self._live = LiveBoard()
        self._changed = asyncio.Event()
        self._ending = ""
        self._next_word_s = 0.0

    def show(self, progress: Progress) -> None:
        """Take what the publisher says of itself."""
        self.progress = progress
        self.board.sent = progress.acknowledged, progress.plain, progress.seconds
        self._draw()
        if progress.trouble and not self._live.live and time.monotonic() > self._next_word_s:
            self._next_word_s = time.monotonic() + WORD_S
            tell(f"lucid: waiting: {progress.trouble}")

    def ending(self, here: bool) -> None:
        """Say that the recording is to end. here: the person who began it wants it."""
        self._ending = ENDING_NOTE if here else ENDED_NOTE
        if not self._live.live:
            tell(self._ending)

    def lines(self) -> list[str]:
        lines = self.board.lines()
        if self.progress.trouble:
            lines.append(f"  waiting: {self.progress.trouble}"[: output.COLUMNS])
        return [*lines, f"  {self._ending}"] if self._ending else lines

    async def follow(self) -> None:
        """Keep the board until cancelled."""
        events = self._jet.follow(subjects.CHUNKS, [subjects.chunk("*", self._session)])
        try:
            async for item in events:
                if isinstance(item, Message):
                    self._take(item)
                    self._draw()
                    self._changed.set()
        finally:
            await events.close()

    async def read(self) -> None:
        """Take the events that are there now."""
        async for message in self._jet.read_all(subjects.CHUNKS, subjects.chunk("*", self._session)):
            self._take(message)

    def _take(self, message: Message) -> None:
        with contextlib.suppress(Rejected):  # nonsense, or of a newer version: the view shows the rest
            self.board.take(message.data)

    async def complete(self, following: "asyncio.Task[None]") -> None:
        """Return when every recorded chunk is stored. Raises what ended `following`, the task of `follow`."""
        while not self.board.complete:
            self._changed.clear()
            changed = asyncio.ensure_future(self._changed.wait())
            try:
                await asyncio.wait({changed, following}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                changed.cancel()
            if following.done():
                following.result()
                return

    def clear(self) -> None:
        with contextlib.suppress(OSError):
            self._live.clear()

    def _draw(self) -> None:
        with contextlib.suppress(OSError):
            self._live.draw(self.lines())


def tell(text: str) -> None:
    """One line beside the result, where somebody still listens."""
    with contextlib.suppress(OSError, ValueError):
        output.note(text)


@dataclass(frozen=True, slots=True)
class Sent:
    """What a recording came to, once its session is ended. broken: why it is not whole."""

    progress: Progress
    broken: LucidError | None = None


async def record_session(
    jet: Jet, grant: Grant, source: Source, encoder: str, view: View, stop: asyncio.Event
) -> Sent:
    """Send the whole source, then `final`; what was sent comes back. Its session is ended, however this ends.

    Raises what kept it from ending in order, after the platform was asked to end it.
    """
    prepare_memory()
    whole = aborted = False

    def end(by_platform: bool) -> None:
        nonlocal aborted
        aborted = by_platform
        source.stop()
        publisher.stop_waiting()
        if not whole:
            view.ending(stop.is_set())

    try:
        publisher = Publisher(jet, grant, view.show, room=SendQuota.of(jet))
        stopping = asyncio.create_task(_heed(jet, publisher, stop, end))
        try:
            broken = await _pour(source, publisher, encoder)
            whole = True  # what stops the session from now on is our own `final`
            if aborted:
                return Sent(await publisher.leave(), broken)
            return await _finish(publisher, broken)
        finally:
            await ended(stopping)
            await publisher.close()
    except asyncio.CancelledError:
        await abort(jet, grant.session, "interrupted")
        raise
    except LucidError as error:
        await abort(jet, grant.session, error.code)
        raise
    except Exception:
        await abort(jet, grant.session, FAILED)
        raise


async def _pour(source: Source, publisher: Publisher, encoder: str) -> LucidError | None:
    """Send all that the source gives; what broke it off, if it was not its end."""
    try:
        await publish(aiter(source), publisher, encoder)
    except LucidError as error:
        return error
    except Exception:
        log.exception("recording_failed session=%s", publisher.grant.session)
        await publisher.break_off(FAILED)
        raise
    return None


async def _finish(publisher: Publisher, broken: LucidError | None) -> Sent:
    """Send the ending. Raises what refused it for good."""
    try:
        done = await (publisher.finish() if broken is None else publisher.break_off(broken.code))
    except NoSpace as error:  # the ending is sent
        return Sent(publisher.progress, broken or error)
    return Sent(done, broken)


async def abort(jet: Jet, session: str, reason: str) -> None:
    """Ask the platform to end a session that its host cannot end. reason: a label."""
    clock = asyncio.get_running_loop().time
    last_s = clock() + ABORT_S
    while True:
        try:
            await call(jet, "abort", {"session": session, "reason": reason})
            return
        except Unavailable:
            if clock() > last_s:
                break
            await asyncio.sleep(AGAIN_S)
        except LucidError:  # refused: it has ended meanwhile
            return
    tell(
        f"lucid: nobody answers, and {session} is not ended; what the server holds of it is kept.\n"
        f"       When it runs again: lucid sessions stop {session} --abort"
    )


async def ended(*tasks: "asyncio.Task[Any]") -> None:
    """Cancel tasks beside the work, and wait until they have let go of what they hold."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _heed(
    jet: Jet, publisher: Publisher, stop: asyncio.Event, end_source: Callable[[bool], None]
) -> None:
    """Rest when the session is paused; end when the person asks or it is ended elsewhere.

    end_source: True: the platform ends the recording itself.
    """
    session = publisher.grant.session

    async def elsewhere() -> bool:
        events = jet.follow(subjects.LIFECYCLE, [subjects.lifecycle(session)])
        try:
            async for item in events:
                event = read_event(item.data) if isinstance(item, Message) else None
                if isinstance(event, EndRequested):
                    return True
                if isinstance(event, Transition):
                    if event.to_state in ENDING:
                        return False
                    if event.to_state in RESTING:
                        publisher.hold(event.reason)
                    elif event.to_state == State.ACTIVE:  # an error does not end a pause
                        publisher.let_go()
            return False
        finally:
            await events.close()

    asked, heard = asyncio.create_task(stop.wait()), asyncio.create_task(elsewhere())
    try:
        await asyncio.wait({asked, heard}, return_when=asyncio.FIRST_COMPLETED)
        by_platform = False
        try:
            by_platform = heard.done() and heard.result()
        except Exception as error:
            log.error("session_unheard session=%s error=%r", session, error)
            await asked  # the person is heard still
        end_source(by_platform)
    finally:
        await ended(asked, heard)
