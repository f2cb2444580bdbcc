"""Reads the audit chain: page by page with filters, or whole, line by line.

1. A page names entries by their number. One message holds several entries, so the message of a number is
   found by halving: 20 reads for a million of entries.
2. One page reads at most SCAN_ENTRIES. A filter that fits few of them gives a short page with a `next`.
3. A line that is no entry is skipped in pages; only handlers.audit.chain judges the chain.
"""

import re
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from handlers.audit.chain import after, chain_time
from schemas import subjects
from schemas.errors import NotFound
from schemas.events.audit import AuditEntry, Head, Word, fields, skim_entry
from schemas.format.jcs import jcs
from schemas.ports import Reader
from schemas.ports.messages import Message
from schemas.types import TimeUs
from streams.scheduling.clock import Clock

PAGE_MOST, SCAN_ENTRIES = 500, 20_000
FIRST_MESSAGES, MOST_MESSAGES, LOOK_MESSAGES = 8, 256, 2
"""Messages in the first read and in the largest one: a page of a busy chain is in one or two of them."""
NUMBER, AT_US = re.compile(rb'"number":([0-9]{1,16})[,}]'), re.compile(rb'"at_us":(-?[0-9]{1,16})[,}]')
HEADS_MOST = 10_000
"""More than a year of hours."""


class AuditQuery(BaseModel):
    """Which entries, in which order."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

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

    def fits(self) -> Callable[[bytes], bool]:
        """Return the test of a line: a member stands in it as text, for a quote in a value is escaped."""
        wanted = {"session": self.session, "who": self.who, "action": self.action, "outcome": self.outcome}
        texts = [jcs({name: text})[1:-1] for name, text in wanted.items() if text]
        since_us, until_us = self.since_us, self.until_us

        def test(line: bytes) -> bool:
            if not all(text in line for text in texts):
                return False
            if since_us is None and until_us is None:
                return True
            at = AT_US.search(line)
            at_us = int(at[1]) if at else 0
            return (since_us is None or at_us >= since_us) and (until_us is None or at_us < until_us)

        return test


async def page(jet: Reader, query: AuditQuery) -> dict[str, Any]:
    """One page: `entries`, and `next` for the `after` of the page behind it; 0: there is none."""
    found: list[AuditEntry] = []
    scanned, last, fits = 0, 0, query.fits()
    numbered = _backwards(jet, query.after) if query.newest_first else _forwards(jet, query.after)
    async for number, line in numbered:
        if len(found) == query.limit or scanned == SCAN_ENTRIES:
            return {"entries": [fields(one) for one in found], "next": last}
        scanned, last = scanned + 1, number
        if fits(line) and (entry := skim_entry(line)) is not None:
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


async def _forwards(jet: Reader, number: int) -> AsyncIterator[tuple[int, bytes]]:
    """Every line behind `number`, with its own."""
    seq = await _seq_of(jet, number) if number else 1
    more, step = True, FIRST_MESSAGES
    while more:
        messages, more = await jet.batch(subjects.AUDIT, subjects.AUDIT_CHAIN, seq, step)
        for message in messages:
            for found, line in _numbered(message):
                if found > number:
                    yield found, line
        if not messages:
            return
        seq, step = messages[-1].seq + 1, min(step * 2, MOST_MESSAGES)


async def _backwards(jet: Reader, before: int) -> AsyncIterator[tuple[int, bytes]]:
    """Every line before `before` (0: all), the last one first."""
    end = await _seq_of(jet, before) if before else (await jet.info(subjects.AUDIT)).last_seq
    step = FIRST_MESSAGES
    while end > 0:
        start = max(1, end - step + 1)
        messages: list[Message] = []
        seq, more = start, True
        while more and seq <= end:
            some, more = await jet.batch(subjects.AUDIT, subjects.AUDIT_CHAIN, seq, end - seq + 1)
            if not some:
                break
            messages += [message for message in some if message.seq <= end]
            seq = some[-1].seq + 1
        for message in reversed(messages):
            for found, line in reversed([*_numbered(message)]):
                if not before or found < before:
                    yield found, line
        end, step = start - 1, min(step * 2, MOST_MESSAGES)


async def _seq_of(jet: Reader, number: int) -> int:
    """Stream sequence of the last message that begins with `number` or an earlier entry; at least 1."""
    try:
        low, high = 1, (await jet.info(subjects.AUDIT)).last_seq
    except NotFound:
        return 1
    while low < high:  # the first message at `low` or behind it begins with `number` at most, or low is 1
        middle = (low + high + 1) // 2
        some, _ = await jet.batch(subjects.AUDIT, subjects.AUDIT_CHAIN, middle, LOOK_MESSAGES)
        first = next(((message.seq, found) for message in some for found, _ in _numbered(message)), None)
        if first is None or first[1] > number:
            high = middle - 1
        else:
            low = max(middle, first[0])
    return low


def _numbered(message: Message) -> Iterator[tuple[int, bytes]]:
    for line in bytes(message.data).split(b"\n"):
        if (found := NUMBER.search(line)) is not None:
            yield int(found[1]), line
