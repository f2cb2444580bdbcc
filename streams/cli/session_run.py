"""Owns one recording as a verb sees it: source → publisher, and the view beside it.

1. The recording never waits for the view: the view follows the events that everyone can follow.
2. The source is asked to end when the person asks (`stop`), or when someone ends the session elsewhere. Whom
   the platform ends (EndRequested) sends what it has read, and no `final`: the end is the platform's.
3. While the session is paused, the source is not read. What it gave before was sent before; a read that was
   under way is sent after it.
4. A recording that is cancelled is aborted: the platform is asked to end it, nothing pretends to be whole.
"""

import asyncio
import contextlib
import errno
import fcntl
import logging
import os
import stat
import sys
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

from schemas import subjects
from schemas.errors import LucidError, NotFound, Rejected
from schemas.jetstream import Message
from schemas.lifecycle_events import EndRequested, State, Transition
from schemas.ports import Jet, Source
from streams.cli import output
from streams.cli.board import Board, LiveBoard
from streams.commands import call
from streams.lifecycle import read_event
from streams.publisher import Grant, Progress, Publisher, publish
from streams.room import Room
from streams.wiring import prepare_memory

log = logging.getLogger("lucid.record")

ENDING = frozenset({State.STOPPING, State.STOPPED, State.CLEANUP, State.DESTROYED})
RESTING = frozenset({State.PAUSING, State.PAUSED})
WORD_S = 30.0
"""Where no board is drawn, it is said so often why a recording waits."""
PIPE_BYTES = 256 << 10
"""How far a writer may be ahead: less, and a fast one costs more fragments; more, and a pause comes late."""
ENDING_NOTE = "ending in order; Ctrl-C again gives up"
ENDED_NOTE = "its session is ended elsewhere; what was read is sent still"


class FileSource:
    """A file, or standard input (`-`)."""

    def __init__(self, path: str, block_bytes: int) -> None:
        """block_bytes: at most read at once. Raises NotFound (record.source)."""
        self._block_bytes = block_bytes
        self._stopped = asyncio.Event()
        try:
            self._file = _opened(path)
            self.size_bytes = os.fstat(self._file).st_size
            """0: nobody knows how much will come."""
        except OSError as error:
            name = "standard input" if path == "-" else path
            raise NotFound(f"{name} cannot be read: {error.strerror}", code="record.source") from None

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while not self._stopped.is_set():
            if not await self._readable():
                return
            block = await asyncio.to_thread(os.read, self._file, self._block_bytes)
            if not block:
                return
            yield block

    def stop(self) -> None:
        self._stopped.set()

    async def _readable(self) -> bool:
        """Wait for bytes without a thread that nobody can wake; False when it was stopped."""
        loop, ready = asyncio.get_running_loop(), asyncio.Event()
        blocking = os.get_blocking(self._file)
        try:
            loop.add_reader(self._file, ready.set)
        except PermissionError:  # epoll refuses what lets nobody wait: files, /dev/null
            return True
        waits = [asyncio.ensure_future(event.wait()) for event in (ready, self._stopped)]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            loop.remove_reader(self._file)
            os.set_blocking(self._file, blocking)  # uvloop has changed that, for all who share the open file
            for wait in waits:
                wait.cancel()
        return not self._stopped.is_set()


def _opened(path: str) -> int:
    if path == "-":
        if sys.stdin is None:
            raise OSError(errno.EBADF, "it is closed")
        file = sys.stdin.fileno()
    else:
        # a named pipe is waited for in `_readable`: an open that waits hears no signal
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        os.set_blocking(file, True)
    kind = os.fstat(file).st_mode
    if stat.S_ISDIR(kind):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if stat.S_ISFIFO(kind):
        with contextlib.suppress(OSError):  # this user's pipes hold all that they may
            if fcntl.fcntl(file, fcntl.F_GETPIPE_SZ) < PIPE_BYTES:
                fcntl.fcntl(file, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    return file


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
        self._live.draw(self.lines())
        if progress.trouble and not self._live.live and time.monotonic() > self._next_word_s:
            self._next_word_s = time.monotonic() + WORD_S
            output.note(f"lucid: waiting: {progress.trouble}")

    def ending(self, here: bool) -> None:
        """Say that the recording is to end. here: the person who began it wants it."""
        self._ending = ENDING_NOTE if here else ENDED_NOTE
        if not self._live.live:
            output.note(self._ending)

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
                    self._live.draw(self.lines())
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
        self._live.clear()


async def record_session(
    jet: Jet, grant: Grant, source: Source, encoder: str, view: View, stop: asyncio.Event
) -> Progress:
    """Send the whole source, then `final`; what was sent comes back. Aborts the session when cancelled."""
    prepare_memory()
    publisher = Publisher(jet, grant, view.show, room=Room.of(jet))

    whole = aborted = False

    def end(by_platform: bool) -> None:
        nonlocal aborted
        aborted = by_platform
        source.stop()
        publisher.stop_waiting()
        if not whole:
            view.ending(stop.is_set())

    stopping = asyncio.create_task(_heed(jet, publisher, stop, end))
    try:
        await publish(aiter(source), publisher, encoder)
        whole = True  # what stops the session from now on is our own `final`
        return await (publisher.leave() if aborted else publisher.finish())
    except asyncio.CancelledError:
        with contextlib.suppress(LucidError):  # refused: it has ended meanwhile
            await call(jet, "abort", {"session": grant.session, "reason": "interrupted"})
        raise
    finally:
        await ended(stopping)
        await publisher.close()


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
