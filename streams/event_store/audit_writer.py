"""Appends audit entries to the chain in AUDIT: many at once, each exactly once, from several processes.

1. Entries of one process that wait together go in one message. It is appended behind the last sequence that
   this process has read; after a Conflict the chain is read on from there, and the entries are linked again.
2. If its ack was lost, an entry is found by its id when the chain is read on. So nothing is doubled, and no
   process can fork the chain.
3. Entries that are `kept` are tried again without a bound; every other entry is refused when the chain does
   not take it.
4. Urgent entries may use the reserve, the last bytes of the stream. Notes may not use the last fifth: no
   host can fill the stream, and so stop the requests of persons.
"""

import asyncio
from collections import deque
from dataclasses import dataclass, field

from handlers.audit.chain import after, link
from schemas import subjects
from schemas.config.logs import logger
from schemas.errors import LucidError, NoSpace, Rejected, Unavailable
from schemas.events.audit import Act, Head, read_entry
from schemas.ports import Jet
from streams.scheduling.clock import Clock
from streams.scheduling.retry import AUDIT, LOG_OUTAGE, retry, retry_conflicts

MESSAGE_ENTRIES = 64
"""Entries in one message: at most 512 KiB, and in fact a tenth of that."""
RESERVE_BYTES, RESERVE_PART = 2 << 20, 10
"""The reserve: 2 MiB, or a tenth of a small stream."""
NOTES_PERCENT = 80
"""Of the stream. Beyond it, no note is taken."""
NO_ENTRY = (b"", "")

log = logger("lucid.audit")


@dataclass(slots=True, eq=False)
class Waiting:
    """One entry that is not durable yet. written: time of the chain, for the caller that waits.

    note: nothing waits for it, and nothing is refused without it.
    """

    act: Act
    urgent: bool = False
    note: bool = False
    kept: bool = False
    written: "asyncio.Future[int] | None" = None

    def end(self, result: int | LucidError) -> None:
        if self.written is None:
            if isinstance(result, LucidError):
                log.error("audit_entry_lost", action=self.act.action, session=self.act.session, error=result)
        elif self.written.done():  # the caller has given up
            return
        elif isinstance(result, LucidError):
            self.written.set_exception(result)
        else:
            self.written.set_result(result)


@dataclass(slots=True)
class ChainWriter:
    """One for each AuditLog."""

    jet: Jet
    clock_us: Clock
    _queue: deque[Waiting] = field(default_factory=deque)
    _writing: "asyncio.Task[None] | None" = None
    _head: Head = field(default_factory=Head)
    _seq: int = 0
    """Stream sequence of the message that ends with `_head`."""
    _known: bool = False
    """Only another process can have added a message behind `_head`."""
    _free_bytes: int = 0
    """Bytes that may be written before the stream is looked at again."""
    _note_bytes: int = 0
    """The same, of notes."""

    @property
    def waiting(self) -> int:
        return len(self._queue)

    def add(self, waiting: Waiting) -> None:
        """Write the entry soon."""
        self._queue.append(waiting)
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write_all())

    async def close(self, timeout_s: float) -> None:
        """Return when every entry is durable, or after `timeout_s`; the log then says how many are not."""
        if self._writing is not None and not self._writing.done():
            await asyncio.wait({self._writing}, timeout=timeout_s)
            self._writing.cancel()
            await asyncio.gather(self._writing, return_exceptions=True)
        if self._queue:
            log.error("audit_entries_lost", entries=len(self._queue))

    async def _write_all(self) -> None:
        """Write until nothing waits. Entries that came meanwhile share the next message."""
        failures = 0
        while self._queue:
            some = [self._queue.popleft() for _ in range(min(len(self._queue), MESSAGE_ENTRIES))]
            try:
                await self._write(some)
                failures = 0
            except LucidError as error:
                self._give_up(some, _refusal(error))
                failures += 1
                if self._queue:
                    await asyncio.sleep(AUDIT.delay_s(failures))
            except Exception:
                log.exception("audit_failed")
                self._give_up(some, _away("it failed inside; the log says why"))
                return
            except BaseException:
                self._queue.extendleft(reversed(some))
                raise

    def _give_up(self, some: list[Waiting], refusal: LucidError) -> None:
        """Refuse the entries that may be refused; the kept ones go first the next time."""
        for one in some:
            if not one.kept:
                one.end(refusal)
        self._queue.extendleft(one for one in reversed(some) if one.kept)

    async def _write(self, some: list[Waiting]) -> None:
        """Make all of them durable, or raise; the durable ones leave the list.

        A crash here leaves the whole message, or none of it.
        """

        async def attempt() -> None:
            if not self._known:
                await self._read_on(some)
            await self._keep_reserve(some)
            if not some:
                return
            lines, head = link((one.act for one in some), self._head, self.clock_us())
            body = b"\n".join(lines)
            self._known = False  # if anything is raised, the message may be there: the next attempt looks
            seq = await self.jet.append(subjects.AUDIT_CHAIN, body, self._seq)
            self._head, self._seq, self._known = head, seq, True
            self._free_bytes -= len(body)
            self._note_bytes -= len(body)
            for one in some:
                one.end(head.time_us)
            some.clear()

        some[:] = [one for one in some if one.written is None or not one.written.done()]
        await retry_conflicts(lambda: retry(attempt, LOG_OUTAGE), "the audit chain")

    async def _read_on(self, some: list[Waiting]) -> None:
        """Move to the end of the chain. Entries of `some` that are found there are durable."""
        if not self._seq:
            await self._find_end()
        own: dict[tuple[bytes, str], Waiting] = {(one.act.id, one.act.phase): one for one in some}
        before = self._seq
        async for message in self.jet.read_all(subjects.AUDIT, subjects.AUDIT_CHAIN, self._seq + 1):
            for line in bytes(message.data).split(b"\n"):
                self._head = after(self._head, line)
                if (found := own.pop(_key(line), None)) is not None:
                    found.end(self._head.time_us)
                    some.remove(found)
            self._seq = message.seq
        if before and self._seq == before:
            await self._check_place()
        self._known = True

    async def _find_end(self) -> None:
        """Set the place from the newest message; if that is no message of ours, to the first one."""
        last = await self.jet.last(subjects.AUDIT, subjects.AUDIT_CHAIN)
        if last is None:
            return
        line = bytes(last.data).rsplit(b"\n", 1)[-1]
        if _key(line) == NO_ENTRY:
            log.error("audit_chain_malformed", seq=last.seq)
            return
        self._head, self._seq = after(Head(), line), last.seq

    async def _check_place(self) -> None:
        """Find the end of a chain that was purged or restored: our last message may be gone.

        A purged chain goes on behind the entry that we know, so that its missing beginning shows.
        """
        last = await self.jet.last(subjects.AUDIT, subjects.AUDIT_CHAIN)
        if (last.seq if last else 0) != self._seq:
            log.error("audit_chain_replaced", seq=self._seq, found=last.seq if last else 0)
            self._seq = 0
            await self._find_end()

    async def _keep_reserve(self, some: list[Waiting]) -> None:
        """Refuse entries that may not use the bytes that are left (audit.full)."""
        noting = any(one.note for one in some)
        if self._free_bytes <= 0 or (noting and self._note_bytes <= 0):
            await self._measure()
        if noting and self._note_bytes <= 0:
            _refuse(some, [one for one in some if one.note], _full("its last fifth is kept for persons"))
        if self._free_bytes <= 0:
            others = [one for one in some if not one.urgent]
            _refuse(some, others, _full("its last bytes are kept for outcomes"))

    async def _measure(self) -> None:
        """Set how many bytes may be written. A quarter of them: other processes write, too."""
        info = await self.jet.info(subjects.AUDIT)
        if info.max_bytes <= 0:
            self._free_bytes = self._note_bytes = RESERVE_BYTES
            return
        reserve = min(RESERVE_BYTES, info.max_bytes // RESERVE_PART)
        self._free_bytes = (info.max_bytes - reserve - info.bytes) // 4
        self._note_bytes = (info.max_bytes * NOTES_PERCENT // 100 - info.bytes) // 4


def _refuse(some: list[Waiting], refused: list[Waiting], refusal: LucidError) -> None:
    """Take the refused entries out of `some`."""
    for one in refused:
        one.end(refusal)
        some.remove(one)


def _key(line: bytes) -> tuple[bytes, str]:
    try:
        entry = read_entry(line)
    except Rejected:
        return NO_ENTRY
    return entry.id, entry.phase


def _refusal(error: LucidError) -> LucidError:
    return _full(error.message) if isinstance(error, NoSpace) else _away(error.message)


def _away(why: str) -> Unavailable:
    return Unavailable(
        f"the audit log takes no entry, and nothing is done or shown unrecorded: {why}",
        code="audit.away",
        hint="ask again; lucid doctor says what is wrong",
    )


def _full(why: str) -> NoSpace:
    return NoSpace(
        f"the audit log is full, and nothing is done or shown unrecorded: {why}",
        code="audit.full",
        hint="raise NATS_MAX_STORAGE_MB, or free some disk and start again",
    )
