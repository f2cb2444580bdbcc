"""Shows the way of one session through the six stages: a fold over its chunk events, and its lines.

1. Rows are keyed by chunk index: a doubled event changes nothing.
2. On a terminal the rows are redrawn in place, REDRAWS_PER_S times a second at most. Elsewhere only notes are
   written, and the verb writes the rows once, as its result.
3. The board reads events only. It sends no command and decides nothing.
4. A terminal or pipe that cannot be written stops nothing.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from schemas import subjects
from schemas.buffers import Bytes
from schemas.config.values import size_text
from schemas.errors import Rejected
from schemas.events.chunk import Chunked, Compressed, Encrypted, Ended, Proven, Recorded, Stored
from schemas.events.upcast import read_chunk_event
from schemas.format.chunk_header import ChunkHeader, Codec, Suite
from schemas.format.index import Entry
from schemas.ports import Jet
from schemas.ports.messages import Message
from streams.cli.live import LiveLines
from streams.cli.output import count_of, note
from streams.host.publisher import Progress
from streams.host.record_session import cancelled

REDRAWS_PER_S = 5
RATE_FROM_S = 1.0
"""Before, a rate means nothing yet."""
WAITING_NOTE_S = 30.0
"""Without a terminal, a note says so often why a recording waits."""
ENDING_NOTE = "ending in order; Ctrl-C again gives up"
ENDED_NOTE = "its session is ended elsewhere; the bytes read are still sent"

STAGES = ("record", "chunk", "compress", "encrypt", "merkle", "store")
SUITES = {Suite.XCHACHA20_POLY1305: "XChaCha20-Poly1305", Suite.AES_256_GCM: "AES-256-GCM"}
LINE = "  {verb:<9}{count:>13}  {bytes:>8}   {text}"


@dataclass
class Row:
    """One stage: bytes that left it, by chunk index."""

    chunks: dict[int, int] = field(default_factory=dict)

    @property
    def bytes(self) -> int:
        return sum(self.chunks.values())


class Board:
    """The state of one session, as its events so far give it."""

    def __init__(self) -> None:
        self.rows = {verb: Row() for verb in STAGES}
        self.ended: Ended | None = None
        self.sent: tuple[int, int, float] | None = None
        """Fragments, plain bytes and seconds that a publisher here has sent; no event reports them yet."""
        self.source_bytes = 0
        """Bytes that a publisher here is to send; 0: unknown."""
        self.fragments = 0
        self.equivocations = 0
        self.raw = 0
        """Chunks that did not become smaller."""
        self.first_us = self.last_us = 0
        self._codecs: set[str] = set()
        self._suite = ""
        self._ranges: dict[int, dict[int, int]] = {}
        """By track: first seq of each chunk, and its last."""
        self._spans = 0
        """Fragments of all chunks, by their first and last seq."""

    def take(self, body: Bytes) -> None:
        """Fold one event of the session. Raises Rejected (event.malformed, event.unknown)."""
        event = read_chunk_event(body)
        match event:
            case Recorded() | Ended():
                self._take_recorded(event)
            case Compressed():
                row = self.rows["compress"]
                if event.index not in row.chunks and event.codec == Codec.NONE:
                    self.raw += 1
                elif event.codec != Codec.NONE:
                    self._codecs.add(Codec(event.codec).name.lower())
                row.chunks[event.index] = event.payload
            case Encrypted():
                self.rows["encrypt"].chunks[event.index] = event.sealed
                self._suite = SUITES[ChunkHeader.parse(event.header).suite]
            case Chunked():
                self.rows["chunk"].chunks[event.index] = event.plain
            case Proven():
                self.rows["merkle"].chunks[event.index] = 0
            case Stored():
                self.rows["store"].chunks[event.index] = Entry.parse(event.entry).sealed

    @property
    def complete(self) -> bool:
        """Whether every chunk that was recorded is stored, and no more will come."""
        return self.ended is not None and len(self.rows["store"].chunks) == self.ended.chunks

    @property
    def gaps(self) -> int:
        """Places where fragments are missing before a chunk, on any track."""
        found = 0
        for ranges in self._ranges.values():
            firsts = sorted(ranges)
            due = [0, *(ranges[first] + 1 for first in firsts)]
            found += sum(first > wanted for first, wanted in zip(firsts, due, strict=False))
        return found

    def lines(self) -> list[str]:
        """One line a stage."""
        texts = {
            "record": self._record_text(),
            "chunk": "opened and joined, in order",
            "compress": self._compress_text(),
            "encrypt": self._suite,
            "merkle": "BLAKE3",
            "store": "durable, read back",
        }
        nouns = {"record": "fragment", "merkle": "leaf"}
        counts = {verb: (len(row.chunks), row.bytes) for verb, row in self.rows.items()}
        counts["record"] = (self.fragments, self.rows["record"].bytes)
        if self.sent is not None and self.ended is None:
            fragments, plain, seconds = self.sent
            counts["record"], texts["record"] = (fragments, plain), self._sent_text(plain, seconds)
        return [
            LINE.format(
                verb=verb,
                count=count_of(count, nouns.get(verb, "chunk")),
                bytes=size_text(plain) if verb != "merkle" else "",
                text=texts[verb] if count else "",
            ).rstrip()
            for verb, (count, plain) in counts.items()
        ]

    def _take_recorded(self, event: Recorded | Ended) -> None:
        self.fragments = max(self.fragments, event.state.fragments)
        self.equivocations = max(self.equivocations, event.state.equivocations)
        if isinstance(event, Ended):
            self.ended = event
            self.fragments = event.fragments
            return
        row = self.rows["record"]
        if event.index not in row.chunks:
            row.chunks[event.index] = event.plain
            self._ranges.setdefault(event.track, {})[event.first_seq] = event.last_seq
            self._spans += event.last_seq - event.first_seq + 1
            self.first_us = min(self.first_us or event.first_us, event.first_us)
            self.last_us = max(self.last_us, event.last_us)

    def _sent_text(self, plain: int, seconds: float) -> str:
        text = f"{seconds:.1f} s so far"
        if seconds < RATE_FROM_S:
            return text
        rate = plain / seconds
        text += f", {size_text(int(rate))}/s"
        left = self.source_bytes - plain
        return f"{text}, about {left / rate:.0f} s left" if left > 0 and rate else text

    def _record_text(self) -> str:
        screen = f"{(self.last_us - self.first_us) / 1e6:.1f} s"
        missing = count_of(self.gaps, "gap") if self.gaps else "none missing"
        doubled = "none doubled" if self._spans == self.fragments else "counting"
        return f"{screen}, {missing}, {doubled}"

    def _compress_text(self) -> str:
        names = ", ".join(sorted(self._codecs))
        if not self.raw:
            return names
        kept = f"{self.raw} kept raw: nothing to gain"
        return f"{names}; {kept}" if names else kept


class View:
    """The board of one session, kept by following its events, and drawn where there is a terminal.

    A streams.host.record_session.RecordingView.
    """

    def __init__(self, jet: Jet, session: str) -> None:
        self.board = Board()
        self.progress = Progress()
        self._jet, self._session = jet, session
        self._live = LiveLines(1 / REDRAWS_PER_S)
        self._changed = asyncio.Event()
        self._ending = ""
        self._next_note_s = 0.0

    def show(self, progress: Progress) -> None:
        self.progress = progress
        self.board.sent = progress.acknowledged, progress.plain, progress.seconds
        self._draw()
        if progress.trouble and not self._live.drawn and time.monotonic() > self._next_note_s:
            self._next_note_s = time.monotonic() + WAITING_NOTE_S
            tell(f"lucid: waiting: {progress.trouble}")

    def ending(self, here: bool) -> None:
        self._ending = ENDING_NOTE if here else ENDED_NOTE
        if not self._live.drawn:
            tell(self._ending)

    def unended(self) -> None:
        tell(
            f"lucid: nobody answers, and {self._session} is not ended; what the server holds of it is kept.\n"
            f"       When it runs again: lucid sessions stop {self._session} --abort"
        )

    def lines(self) -> list[str]:
        lines = self.board.lines()
        if self.progress.trouble:
            lines.append(f"  waiting: {self.progress.trouble}")
        return [*lines, f"  {self._ending}"] if self._ending else lines

    @contextlib.asynccontextmanager
    async def following(self) -> "AsyncIterator[asyncio.Task[None]]":
        """Follow the session's events until the block ends. Gives the task that follows."""
        task = asyncio.create_task(self._follow())
        try:
            yield task
        finally:
            await cancelled(task)

    async def read(self) -> None:
        """Take the events that are there now."""
        async for message in self._jet.read_all(subjects.CHUNKS, subjects.chunk("*", self._session)):
            self._take(message)

    async def complete(self, following: "asyncio.Task[None]") -> None:
        """Return when every recorded chunk is stored. Raises the error that ended `following`."""
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

    async def _follow(self) -> None:
        events = self._jet.follow(subjects.CHUNKS, [subjects.chunk("*", self._session)])
        try:
            async for item in events:
                if isinstance(item, Message):
                    self._take(item)
                    self._draw()
                    self._changed.set()
        finally:
            await events.close()

    def _take(self, message: Message) -> None:
        with contextlib.suppress(Rejected):  # malformed, or of a newer version: the view shows the rest
            self.board.take(message.data)

    def _draw(self) -> None:
        with contextlib.suppress(OSError):
            self._live.draw(self.lines())


def tell(text: str) -> None:
    """Write one line beside the result, if stderr can be written."""
    with contextlib.suppress(OSError, ValueError):
        note(text)
