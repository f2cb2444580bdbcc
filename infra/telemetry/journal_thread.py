"""Writes the journal of spans in a thread of its own: no caller waits for a disk.

    span ended → queue → one write for all that wait → `kept` returns → the message is acknowledged

1. The thread alone touches the files. A batch has the spans of GATHER_S, or of less while somebody waits.
2. `kept` returns when the spans ended before are in the file. A disk that hangs costs KEPT_S once: until the
   thread has written again, nobody waits for it.
3. More than WAITING_MOST spans do not wait for the disk: later ones are exported without a line.
4. A kill takes the spans of the last GATHER_S, except those that `kept` has seen.
"""

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue

from infra.telemetry.span_journal import Line, SpanJournal
from schemas.config.logs import logger

GATHER_S = 0.02
KEPT_S = 0.25
CLOSE_S = 1.0
WAITING_MOST = 4096
BATCH_LINES = 256
"""Lines of one write."""

log = logger("lucid.traces")

Said = Callable[[], object]
"""Called in the thread when every span before had its turn."""
Item = tuple[int, Line] | int | Said | None
"""A span with its number, the number of an exported one, somebody who waits; None: the end."""


class JournalThread:
    """The journal of one process, behind a queue. Any thread may call; numbers are in order."""

    def __init__(self, journal: SpanJournal) -> None:
        self._journal = journal
        self._queue: SimpleQueue[Item] = SimpleQueue()
        self._urgent = threading.Event()
        self._added = self._written = self._unkept = 0
        """Numbers: of the newest span here, of the last one that had its turn, of the last one left out."""
        self._is_slow = False
        self._thread = threading.Thread(target=self._run, name="lucid-span-journal", daemon=True)
        self._thread.start()

    def add(self, number: int, line: Line) -> None:
        """Note a span soon."""
        if self._queue.qsize() < WAITING_MOST:
            self._added = number
            self._queue.put((number, line))
        else:
            self._unkept = number

    def forget(self, number: int) -> None:
        """The spans up to this number are exported, or dropped."""
        self._queue.put(number)

    async def kept(self) -> None:
        """Return when a kill of this process loses no span that was added before, or after KEPT_S."""
        if self._written >= self._added or self._is_slow:
            return
        loop = asyncio.get_running_loop()
        written = loop.create_future()

        self._ask(lambda: loop.call_soon_threadsafe(_resolve, written))
        try:
            async with asyncio.timeout(KEPT_S):
                await written
        except TimeoutError:
            self._is_slow = True

    def is_kept(self, number: int) -> bool:
        """Wait until a span had its turn; return whether it is in the file. Blocks."""
        if self._written < number:
            said = threading.Event()
            self._ask(said.set)
            while not said.wait(CLOSE_S) and self._thread.is_alive():
                pass
        return self._written >= number > self._unkept

    def close(self) -> None:
        """Write the rest, and end; or give it up after CLOSE_S."""
        self._queue.put(None)
        self._urgent.set()
        self._thread.join(CLOSE_S)

    def _ask(self, say: Said) -> None:
        self._queue.put(say)
        self._urgent.set()

    def _run(self) -> None:
        while True:
            items: list[Item] = [self._queue.get()]
            if isinstance(items[0], tuple):
                self._urgent.wait(GATHER_S)
            self._urgent.clear()
            with suppress(Empty):
                while len(items) < BATCH_LINES:
                    items.append(self._queue.get_nowait())
            if not self._work(items):
                return

    def _work(self, items: list[Item]) -> bool:
        """Do these in order, the spans together; return whether it goes on."""
        self._write([item for item in items if isinstance(item, tuple)])
        exported = max((item for item in items if isinstance(item, int)), default=0)
        if exported:
            self._journal.forget(exported)
        for item in items:
            if callable(item):
                with suppress(RuntimeError):  # its event loop is closed
                    item()
        self._is_slow = False
        if None in items:
            self._journal.close()
            return False
        return True

    def _write(self, numbered: list[tuple[int, Line]]) -> None:
        if not numbered:
            return
        last = numbered[-1][0]
        try:
            is_kept = self._journal.add([line for _, line in numbered], last)
        except (TypeError, ValueError) as error:  # a fact that is no JSON
            log.warning("spans_unkept", spans=len(numbered), error=error)
            is_kept = False
        if not is_kept:
            self._unkept = max(self._unkept, last)
        self._written = last


def _resolve(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)
