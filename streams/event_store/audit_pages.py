"""Reads the audit chain: page by page with filters, or whole, line by line.

1. A page names entries by their number. One message holds several entries, so the message of a number is
   found by halving: 20 reads for a million of entries.
2. One page reads at most SCAN_ENTRIES. A filter that fits few of them gives a short page with a `next`.
3. A line that is no entry is skipped in pages; only handlers.audit.chain judges the chain.
"""

from collections import deque
from collections.abc import AsyncIterator, Iterator
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from handlers.audit.chain import after, chain_time
from schemas import subjects
from schemas.errors import EvidenceFalse, NotFound
from schemas.events.audit import AuditEntry, Head, Word, fields, read_entry
from schemas.ports import Reader
from schemas.ports.messages import Message
from schemas.types import TimeUs
from streams.scheduling.clock import Clock

PAGE_MOST, SCAN_ENTRIES = 500, 20_000
STEP_MESSAGES, LOOK_MESSAGES = 512, 16
HEADS_MOST = 10_000
"""More than a year of hours."""


class AuditQuery(BaseModel):
    """Which entries, in which order."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    after: Annotated[int, Field(ge=0, lt=2**53)] = 0
    """Number of the entry that the page before ended with; 0: from the beginning of the order."""
    newest_first: bool = False
    limit: Annotated[int, Field(ge=1, le=PAGE_MOST)] = 100
    session: Word = ""
    who: Annotated[str, Field(max_length=200)] = ""
    action: Word = ""
    outcome: Word = ""
    since_us: TimeUs | None = None
    until_us: TimeUs | None = None
    """Before this time."""

    def fits(self, entry: AuditEntry) -> bool:
        """Whether the entry is one of those that are asked for."""
        wanted = ((self.session, entry.session), (self.who, entry.who), (self.action, entry.action),
                  (self.outcome, entry.outcome))  # fmt: skip
        return (
            all(asked in ("", found) for asked, found in wanted)
            and (self.since_us is None or entry.at_us >= self.since_us)
            and (self.until_us is None or entry.at_us < self.until_us)
        )


async def page(jet: Reader, query: AuditQuery) -> dict[str, Any]:
    """One page: `entries`, and `next` for the `after` of the page behind it; 0: there is none."""
    found: list[AuditEntry] = []
    scanned, last = 0, 0
    async for entry in _backwards(jet, query.after) if query.newest_first else _forwards(jet, query.after):
        if len(found) == query.limit or scanned == SCAN_ENTRIES:
            return {"entries": [fields(one) for one in found], "next": last}
        scanned, last = scanned + 1, entry.number
        if query.fits(entry):
            found.append(entry)
    return {"entries": [fields(one) for one in found], "next": 0}


async def chain_lines(jet: Reader) -> AsyncIterator[bytes]:
    """Every line of the chain that AUDIT holds now, in order, as it is stored."""
    async for line in lines_from(jet, 0):
        yield line


async def lines_from(jet: Reader, number: int) -> AsyncIterator[bytes]:
    """Every line from the message on that holds entry `number`; it may begin with earlier entries."""
    seq = await _seq_of(jet, number) if number else 1
    async for message in jet.read_all(subjects.AUDIT, subjects.AUDIT_CHAIN, seq):
        for line in bytes(message.data).split(b"\n"):
            yield line


async def signed_heads(jet: Reader) -> list[bytes]:
    """The envelopes of the newest HEADS_MOST heads."""
    newest: deque[bytes] = deque(maxlen=HEADS_MOST)
    async for message in jet.read_all(subjects.AUDIT, subjects.AUDIT_HEADS):
        newest.append(bytes(message.data))
    return list(newest)


async def chain_now_us(jet: Reader, clock_us: Clock) -> int:
    """Time of the chain now: never before that of its last entry."""
    last = await jet.last(subjects.AUDIT, subjects.AUDIT_CHAIN)
    if last is None:
        return clock_us()
    return chain_time(after(Head(), bytes(last.data).rsplit(b"\n", 1)[-1]), clock_us())[0]


async def _forwards(jet: Reader, number: int) -> AsyncIterator[AuditEntry]:
    seq = await _seq_of(jet, number) if number else 1
    more = True
    while more:
        messages, more = await jet.batch(subjects.AUDIT, subjects.AUDIT_CHAIN, seq, STEP_MESSAGES)
        for message in messages:
            for entry in _entries(message):
                if entry.number > number:
                    yield entry
        if not messages:
            return
        seq = messages[-1].seq + 1


async def _backwards(jet: Reader, before: int) -> AsyncIterator[AuditEntry]:
    end = await _seq_of(jet, before) if before else (await jet.info(subjects.AUDIT)).last_seq
    while end > 0:
        start = max(1, end - STEP_MESSAGES + 1)
        messages: list[Message] = []
        seq, more = start, True
        while more and seq <= end:
            some, more = await jet.batch(subjects.AUDIT, subjects.AUDIT_CHAIN, seq, end - seq + 1)
            if not some:
                break
            messages += [message for message in some if message.seq <= end]
            seq = some[-1].seq + 1
        for message in reversed(messages):
            for entry in reversed([*_entries(message)]):
                if not before or entry.number < before:
                    yield entry
        end = start - 1


async def _seq_of(jet: Reader, number: int) -> int:
    """Stream sequence of the last message that begins with `number` or an earlier entry; at least 1."""
    try:
        low, high = 1, (await jet.info(subjects.AUDIT)).last_seq
    except NotFound:
        return 1
    while low < high:  # the first message at `low` or behind it begins with `number` at most, or low is 1
        middle = (low + high + 1) // 2
        some, _ = await jet.batch(subjects.AUDIT, subjects.AUDIT_CHAIN, middle, LOOK_MESSAGES)
        first = next(((message.seq, e.number) for message in some for e in _entries(message)), None)
        if first is None or first[1] > number:
            high = middle - 1
        else:
            low = max(middle, first[0])
    return low


def _entries(message: Message) -> Iterator[AuditEntry]:
    for line in bytes(message.data).split(b"\n"):
        try:
            yield read_entry(line)
        except EvidenceFalse:
            continue
