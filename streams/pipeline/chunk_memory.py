"""Keeps the bytes of chunks in this process, and limits how many there are.

1. Memory is an advantage, never a need: missing bytes are made again from the recording stream.
2. There are two budgets; one budget could deadlock. Record's bytes (open chunks, and closed chunks without a
   started job) can be dropped, and nothing waits for them. Credit is taken when a `chunk` job starts, and
   returned when its chunk is stored or dead. Later stages never wait for credit, even to recompute bytes.
   Over record's budget, open chunks go to files or are dropped (open_chunks.py). Closed chunks with a slow
   codec wait long: they get one part of SLOW_SHARE of the budget, and the others are read again.
3. One host gets at most three quarters of the credit. A session with a slow codec takes from a small credit
   of its own. A host with more than its share of chunks under way is `full`: record leaves its other
   fragments in the stream.
"""

import asyncio
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from schemas.events.chunk import Compressed, Encrypted, Recorded
from schemas.format.digest import Buffer
from schemas.format.fragment import Fragment
from schemas.ports import Overflow
from streams.pipeline.open_chunks import HOST_SHARE, OpenChunks, now_s
from streams.pipeline.spilled_fragments import Kept, bytes_held
from streams.scheduling.fair_slots import FairSlots

IDLE_S = 30.0
"""A chunk that no job here touched for so long is dead, or under way elsewhere: its bytes are evicted."""
HOST_CHUNKS, SLOW_WEIGHT = 16, 4
"""Chunks of one host that closed here and may be under way at once: half of the messages that a stage takes,
so that other hosts find a place. A chunk with a slow codec counts as four."""
SLOW_SHARE = 8
"""So small a part holds up nobody, and it is enough for chunks whose job begins at once."""
STORED_KEPT = 1024
"""Remembered chunks that another owner stored before they closed here."""

Key = tuple[bytes, int]
"""(uid, chunk index)."""


@dataclass(slots=True)
class Work:
    """The bytes of one closed chunk in memory; each form is dropped when the next one exists."""

    recorded: Recorded
    unstarted: bool = False
    """It was closed here, and its job has not begun."""
    fragments: list[Kept] | None = None
    plain: Buffer | None = None
    payload: tuple[Compressed, Buffer] | None = None
    sealed: tuple[Encrypted, Buffer] | None = None
    weight: int = 0
    """Its weight among the chunks of its host; 0: it closed elsewhere, or waits for an outage to end."""
    credit: int = 0
    slow: bool = False
    """Its credit was taken from the credit of slow codecs."""
    jobs: int = 0
    """Jobs that use it now: it is not evicted meanwhile."""
    touched_s: float = 0.0
    began_s: float = field(default_factory=now_s)
    """When this process first knew the chunk."""


class ChunkMemory:
    """The process's memory of chunks. Used from one event loop only."""

    def __init__(self, record_bytes: int, credit_bytes: int, overflow: Overflow | None = None) -> None:
        """overflow: None: what exceeds `record_bytes` is dropped."""
        self.record_limit = record_bytes
        self.credit = FairSlots(credit_bytes, credit_bytes * 3 // 4)
        self.slow_credit = FairSlots(credit_bytes // 4)
        self.closed_bytes = 0
        """Bytes in memory of closed chunks without a started job."""
        self.unstarted_bytes = 0
        """Of all closed chunks without a started job, also of those whose bytes must be read again."""
        self._slow_bytes = 0
        """Plain bytes of closed chunks with a slow codec that are kept."""
        self._open = OpenChunks(record_bytes, overflow)
        self._work: dict[Key, Work] = {}
        self._stored: dict[Key, None] = {}
        """In the order in which they were stored."""
        self._host_chunks: Counter[str] = Counter()
        self._host_bytes: Counter[str] = Counter()
        """Of closed chunks without a started job."""
        self._moved = asyncio.Event()

    # record's side

    @property
    def open_bytes(self) -> int:
        """Bytes in memory of open chunks."""
        return self._open.bytes_held

    def add(self, uid: bytes, host: str, stream_seq: int, fragment: Fragment) -> None:
        """Keep a data fragment until its chunk closes."""
        self._open.add(uid, host, stream_seq, fragment)
        self._open.shrink(self.record_limit - self.closed_bytes, host)

    def close(self, recorded: Recorded, data_seqs: Iterable[int], *, slow: bool = False) -> None:
        """A chunk closed: its fragments wait for their job.

        data_seqs: stream sequences of its data fragments, by seq. slow: its codec is slow.
        """
        fragments = self._open.take(recorded.uid, data_seqs)
        if (recorded.uid, recorded.index) in self._stored:
            return
        work = self.work(recorded)
        if not work.weight:
            self._weigh(work, SLOW_WEIGHT if slow else 1)
        if slow:
            self._keep_slow(work, fragments)
        elif not work.unstarted and not work.jobs:
            self._begun(work)
            work.unstarted, work.fragments = True, fragments
            self._count(work, 1)

    def drop(self, uid: bytes, stream_seq: int) -> None:
        """Drop a fragment that the fold has not taken."""
        self._open.release(uid, stream_seq)

    def forget_open(self, uid: bytes) -> None:
        """Drop the fragments of a session's open chunks; they are read again."""
        self._open.forget(uid)

    def full(self, host: str) -> bool:
        """Whether the host has its share under way: then its other fragments stay in the stream."""
        return (
            self._host_chunks[host] >= HOST_CHUNKS or self._host_bytes[host] * HOST_SHARE > self.record_limit
        )

    async def wait_for_space(self, host: str = "") -> None:
        """Wait until the unstarted chunks of all hosts leave space, and this host is not full."""
        while self.unstarted_bytes * 2 > self.record_limit or self.full(host):
            self._moved.clear()
            await self._moved.wait()

    # the stages' side

    def work(self, recorded: Recorded) -> Work:
        """The chunk's memory; a new one if there is none, or if a void fold had cut another chunk here."""
        key = (recorded.uid, recorded.index)
        work = self._work.get(key)
        if work is None or work.recorded != recorded:
            self.finish(*key)
            work = self._work[key] = Work(recorded)
        work.touched_s = now_s()
        return work

    def find(self, uid: bytes, index: int) -> Work | None:
        work = self._work.get((uid, index))
        if work is not None:
            work.touched_s = now_s()
        return work

    async def take_credit(self, work: Work, *, slow: bool = False) -> None:
        """Wait until the chunk's bytes fit into memory. A redelivered chunk takes no second credit."""
        if work.credit == 0:
            size, host = max(1, work.recorded.plain), work.recorded.host
            credit = self.slow_credit if slow else self.credit
            await credit.take(host, size)
            key = (work.recorded.uid, work.recorded.index)
            if work.credit or self._work.get(key) is not work:  # doubled or finished meanwhile
                credit.give(host, size)
            else:
                work.credit, work.slow = size, slow

    def start(self, work: Work) -> list[Kept] | None:
        """Hand out the chunk's fragments; None: they are not kept."""
        fragments = work.fragments
        self._begun(work)
        return fragments

    def put_back(self, uid: bytes, index: int) -> None:
        """The chunk waits for an outage to end: it does not count among its host's chunks meanwhile."""
        work = self._work.get((uid, index))
        if work is not None:
            self._weigh(work, 0)

    def finish(self, uid: bytes, index: int) -> None:
        """Forget a chunk that is stored, dead or obsolete."""
        work = self._work.pop((uid, index), None)
        if work is None:
            return
        host = work.recorded.host
        if work.credit:
            (self.slow_credit if work.slow else self.credit).give(host, work.credit)
        self._weigh(work, 0)
        self._begun(work)

    def stored(self, uid: bytes, index: int) -> None:
        """Forget a chunk that this or another owner stored, also if it closes here only later."""
        self.finish(uid, index)
        self._stored[uid, index] = None
        if len(self._stored) > STORED_KEPT:
            del self._stored[next(iter(self._stored))]

    def evict_idle(self) -> None:
        """Forget chunks that were not touched for IDLE_S. The worker calls it every few seconds.

        An idle open chunk is dropped only where others were dropped for it.
        """
        limit = now_s() - IDLE_S
        self._open.evict(limit)
        old = [key for key, work in self._work.items() if work.touched_s <= limit and not work.jobs]
        for uid, index in old:
            self.finish(uid, index)

    def _keep_slow(self, work: Work, fragments: list[Kept] | None) -> None:
        """Keep a chunk with a slow codec while there are few. Nobody waits for such chunks."""
        fits = (self._slow_bytes + work.recorded.plain) * SLOW_SHARE <= self.record_limit
        is_new = work.fragments is None and not work.unstarted and not work.jobs
        if fits and is_new and fragments is not None:
            work.fragments = fragments
            self._slow_bytes += work.recorded.plain
            self.closed_bytes += sum(map(bytes_held, fragments))

    def _begun(self, work: Work) -> None:
        if work.unstarted:
            self._count(work, -1)
        elif work.fragments is not None:
            self._slow_bytes -= work.recorded.plain
            self.closed_bytes -= sum(map(bytes_held, work.fragments))
        work.unstarted, work.fragments = False, None

    def _weigh(self, work: Work, weight: int) -> None:
        host = work.recorded.host
        self._host_chunks[host] += weight - work.weight
        work.weight = weight
        if not self._host_chunks[host]:
            del self._host_chunks[host]
        self._moved.set()

    def _count(self, work: Work, sign: int) -> None:
        self.closed_bytes += sign * sum(map(bytes_held, work.fragments or ()))
        host, plain = work.recorded.host, work.recorded.plain
        self.unstarted_bytes += sign * plain
        self._host_bytes[host] += sign * plain
        if not self._host_bytes[host]:
            del self._host_bytes[host]
        self._moved.set()
