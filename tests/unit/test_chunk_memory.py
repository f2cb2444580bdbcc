"""The memory of chunks: two budgets that never lose count, and bytes that are whole or not there."""

import asyncio
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from unittest.mock import patch

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from handlers.stages.record.admit import admit
from handlers.stages.record.fold import Fold
from handlers.stages.record.pieces import FoldedFragment
from infra.disk.overflow import DiskOverflow
from schemas.events.chunk import Recorded
from schemas.format.fragment import Fragment, Kind
from streams.event_store.chunk_log import data_seqs
from streams.pipeline import chunk_memory as memory
from streams.pipeline.chunk_memory import ChunkMemory, Work
from streams.pipeline.spilled_fragments import Spilled, bytes_held, read_back
from streams.scheduling.fair_slots import FairSlots
from tests.support.evidence.folding import IDENTITY, PUBLIC, Host
from tests.support.machine.waiting import PATIENCE_S

SESSIONS, CHUNKS = 2, 4
RECORD_BYTES, CREDIT_BYTES = 5000, 4000


@dataclass
class Tape:
    """One session's data fragments by stream sequence, and its chunks in order."""

    uid: bytes
    fragments: dict[int, Fragment] = field(default_factory=dict)
    chunks: list[Recorded] = field(default_factory=list)
    seqs: list[list[int]] = field(default_factory=list)
    """Stream sequences of each chunk's data fragments, by seq."""


def taped(number: int) -> Tape:
    """A recording of CHUNKS chunks; the first has no data, the others up to three fragments."""
    host, fold, tape = Host(), Fold(IDENTITY), Tape(bytes([number]) * 16)
    made = host.make(("part", 0, 0)) + host.make(("pause", 0, 0))
    for chunk in range(1, CHUNKS):
        made += [f for n in range(chunk) for f in host.make(("data", 0, 400 * (chunk + n + number)))]
        made += host.make(("pause", 0, 0))
    for seq, whole in enumerate(made, 1):
        fragment = admit(whole, PUBLIC)
        assert isinstance(fragment, Fragment)
        if fragment.header.kind is Kind.DATA:
            tape.fragments[seq] = fragment
        closed = [out for out in fold.take(FoldedFragment.of(seq, fragment)) if isinstance(out, Recorded)]
        tape.chunks += [chunk.model_copy(update={"uid": tape.uid}) for chunk in closed]
    assert len(tape.chunks) == CHUNKS
    tape.seqs = [data_seqs(chunk) for chunk in tape.chunks]
    return tape


TAPES = [taped(number) for number in range(SESSIONS + 1)]


class Process:
    """What a worker does with its memory, one random step after the other; and what must hold after each."""

    def __init__(self, overflow: DiskOverflow | None) -> None:
        self.overflow = overflow
        self.chunk_memory = ChunkMemory(RECORD_BYTES, CREDIT_BYTES, overflow)
        self.taken = [0] * SESSIONS
        """Data fragments that record has seen, by session."""
        self.closed = [0] * SESSIONS
        self.waiting: list[asyncio.Task[None]] = []

    async def step(self, what: str, session: int, number: int) -> None:
        getattr(self, what)(TAPES[session], session, number)
        for _ in range(4 * any(not task.done() for task in self.waiting)):
            await asyncio.sleep(0)
        self.check()

    def hold(self, tape: Tape, session: int, number: int) -> None:
        seqs = sorted(tape.fragments)
        if self.taken[session] < len(seqs):
            seq = seqs[self.taken[session]]
            self.chunk_memory.add(tape.uid, IDENTITY.host, seq, tape.fragments[seq])
            self.taken[session] += 1

    def hold_again(self, tape: Tape, session: int, number: int) -> None:
        seen = sorted(tape.fragments)[: self.taken[session]][-2:]
        for seq in seen:
            self.chunk_memory.add(tape.uid, IDENTITY.host, seq, tape.fragments[seq])

    def drop(self, tape: Tape, session: int, number: int) -> None:
        """A fragment was refused, or is a double."""
        if self.taken[session]:
            self.chunk_memory.drop(tape.uid, sorted(tape.fragments)[self.taken[session] - 1])

    def forget_open(self, tape: Tape, session: int, number: int) -> None:
        """The session is walked again from its last event."""
        self.chunk_memory.forget_open(tape.uid)
        self.taken[session] = sum(map(len, tape.seqs[: self.closed[session]]))

    def close(self, tape: Tape, session: int, number: int) -> None:
        if self.closed[session] < CHUNKS:
            chunk = tape.chunks[self.closed[session]]
            self.closed[session] += 1
            while self.taken[session] < sum(map(len, tape.seqs[: self.closed[session]])):
                self.hold(tape, session, number)
            self.chunk_memory.close(chunk, tape.seqs[chunk.index])

    def close_slow(self, tape: Tape, session: int, number: int) -> None:
        with patch.object(memory, "SLOW_SHARE", 2):
            if self.closed[session] < CHUNKS:
                chunk = tape.chunks[self.closed[session]]
                self.closed[session] += 1
                self.chunk_memory.close(chunk, tape.seqs[chunk.index], slow=True)
                self.chunk_memory.close(chunk, tape.seqs[chunk.index], slow=True)

    def close_again(self, tape: Tape, session: int, number: int) -> None:
        """A fold that was restored closes what it has closed before."""
        if self.closed[session]:
            chunk = self.known(tape, session, number)
            holding(self.chunk_memory, tape, chunk.index)
            self.chunk_memory.close(chunk, tape.seqs[chunk.index])

    def take_credit(self, tape: Tape, session: int, number: int) -> None:
        if self.closed[session]:
            work = self.chunk_memory.work(self.known(tape, session, number))
            self.waiting.append(asyncio.create_task(self._job(work)))

    async def _job(self, work: Work) -> None:
        work.jobs += 1
        try:
            await self.chunk_memory.take_credit(work)
        finally:
            work.jobs -= 1

    def cancel(self, tape: Tape, session: int, number: int) -> None:
        under_way = [task for task in self.waiting if not task.done()]
        if under_way:
            under_way[number % len(under_way)].cancel()

    def start(self, tape: Tape, session: int, number: int) -> None:
        chunk = self.known(tape, session, number)
        work = self.chunk_memory.find(tape.uid, chunk.index)
        if work is not None:
            kept = self.chunk_memory.start(work)
            found = None if kept is None else read_back(kept)
            wanted = [tape.fragments[seq] for seq in tape.seqs[chunk.index]]
            assert found is None or found == wanted
            assert self.chunk_memory.start(work) is None

    def finish(self, tape: Tape, session: int, number: int) -> None:
        self.chunk_memory.finish(tape.uid, number)

    def stored(self, tape: Tape, session: int, number: int) -> None:
        """Here or elsewhere, before it closed here or after."""
        self.chunk_memory.stored(tape.uid, number)

    def replace(self, tape: Tape, session: int, number: int) -> None:
        """A void fold had cut another chunk here."""
        self.chunk_memory.work(tape.chunks[number].model_copy(update={"host": "another"}))

    def evict_idle(self, tape: Tape, session: int, number: int) -> None:
        busy = {key for key, work in self.chunk_memory._work.items() if work.jobs}
        with patch.object(memory, "IDLE_S", -1.0):
            self.chunk_memory.evict_idle()
        assert set(self.chunk_memory._work) == busy

    def known(self, tape: Tape, session: int, number: int) -> Recorded:
        """One of the chunks that were closed last."""
        return tape.chunks[max(0, self.closed[session] - 1 - number % 2)]

    def check(self) -> None:
        chunk_memory, works = self.chunk_memory, self.chunk_memory._work.values()
        opened = chunk_memory._open
        held = [sum(map(bytes_held, one.fragments.values())) for one in opened._open.values()]
        assert [one.bytes_held for one in opened._open.values()] == held
        assert chunk_memory.open_bytes == sum(held) == sum(opened._held_of_host.values())
        assert set(opened._kept) == {uid for uid, one in opened._open.items() if one.bytes_held}
        away = {uid: one for uid, one in opened._open.items() if one.file_bytes}
        assert opened._away == away
        assert sum(opened._away_of_host.values()) == sum(one.file_bytes for one in away.values())
        if self.overflow is not None:
            files = [kept for one in opened._open.values() for kept in one.fragments.values()]
            files += [kept for work in works for kept in work.fragments or ()]
            sizes = {id(kept.file): kept.file._size for kept in files if isinstance(kept, Spilled)}
            assert sum(sizes.values()) <= self.overflow.used_bytes <= self.overflow._limit
            assert {id(one.file) for one in away.values()} >= {
                id(kept.file)
                for one in opened._open.values()
                for kept in one.fragments.values()
                if isinstance(kept, Spilled)
            }
        waiting = [bytes_held(kept) for work in works for kept in work.fragments or ()]
        assert chunk_memory.closed_bytes == sum(waiting)
        assert chunk_memory.open_bytes + chunk_memory.closed_bytes <= RECORD_BYTES
        assert chunk_memory.unstarted_bytes == sum(work.recorded.plain for work in works if work.unstarted)
        slow = sum(work.recorded.plain for work in works if work.fragments is not None and not work.unstarted)
        assert chunk_memory._slow_bytes == slow <= RECORD_BYTES // 2
        chunks, unstarted = Counter[str](), Counter[str]()
        for work in works:
            chunks[work.recorded.host] += work.weight
            unstarted[work.recorded.host] += work.recorded.plain * work.unstarted
        assert (+chunk_memory._host_chunks, +chunk_memory._host_bytes) == (+chunks, +unstarted)
        credits = [work.credit for work in works if work.credit]
        assert chunk_memory.credit.used == sum(credits)
        assert chunk_memory.credit.used <= CREDIT_BYTES or len(credits) == 1
        assert not chunk_memory.credit._serve(), "room, and nobody is let in"

    async def end(self) -> None:
        """Every chunk is through: all of both budgets is back, and nobody waits."""
        for _ in range(SESSIONS * CHUNKS):
            for number, tape in enumerate(TAPES[:SESSIONS]):
                for chunk in tape.chunks:
                    await self.step("finish", number, chunk.index)
                await self.step("forget_open", number, 0)
        self.check()
        assert all(task.done() for task in self.waiting)
        assert (self.chunk_memory.open_bytes, self.chunk_memory.closed_bytes) == (0, 0)
        assert (self.chunk_memory.unstarted_bytes, self.chunk_memory.credit.used) == (0, 0)
        assert self.overflow is None or self.overflow.used_bytes == 0
        await asyncio.gather(*self.waiting, return_exceptions=True)


STEPS = (
    *("hold", "hold", "hold", "close", "close", "take_credit", "take_credit", "start", "start", "finish"),
    *(
        "close_slow",
        "stored",
        "hold_again",
        "close_again",
        "drop",
        "forget_open",
        "cancel",
        "replace",
        "evict_idle",
    ),
)
STEP = st.tuples(st.sampled_from(STEPS), st.integers(0, SESSIONS - 1), st.integers(0, CHUNKS - 1))


@pytest.mark.parametrize("file_bytes", [None, 4000, 1 << 30])
@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.generate],  # a list of steps is not made smaller: that takes minutes
)
@given(st.lists(STEP, min_size=30, max_size=60))
def test_no_order_of_steps_loses_a_byte_of_a_budget(
    file_bytes: int | None, tmp_path: Path, steps: list[tuple[str, int, int]]
) -> None:
    """Breaks: a worker's memory or its files grow, or its credit shrinks, until it stands still."""

    async def run() -> None:
        process = Process(None if file_bytes is None else DiskOverflow(tmp_path, file_bytes))
        for step in steps:
            await process.step(*step)
        await process.end()

    asyncio.run(run())


def holding(chunk_memory: ChunkMemory, tape: Tape, chunk: int) -> None:
    for seq in tape.seqs[chunk]:
        chunk_memory.add(tape.uid, IDENTITY.host, seq, tape.fragments[seq])


async def test_what_was_held_is_handed_out_once_and_in_order() -> None:
    """Breaks: bytes cross the wire twice, or a chunk is joined in the wrong order."""
    chunk_memory, tape = ChunkMemory(1 << 20, 1 << 20), TAPES[1]
    for seq in reversed(tape.seqs[3]):
        chunk_memory.add(tape.uid, IDENTITY.host, seq, tape.fragments[seq])
    chunk_memory.close(tape.chunks[3], tape.seqs[3])
    work = chunk_memory.work(tape.chunks[3])
    assert chunk_memory.start(work) == [tape.fragments[seq] for seq in tape.seqs[3]]
    assert chunk_memory.start(work) is None
    assert (chunk_memory.open_bytes, chunk_memory.closed_bytes, chunk_memory.unstarted_bytes) == (0, 0, 0)


async def test_of_chunks_with_a_slow_codec_a_few_are_kept_and_hold_up_nobody() -> None:
    """Breaks: each chunk of a calm session is read again; or chunks that wait long take all memory."""
    tape = TAPES[1]
    sizes = [chunk.plain for chunk in tape.chunks]
    chunk_memory = ChunkMemory((sizes[2] + sizes[3]) * memory.SLOW_SHARE - 1, 1 << 20)
    for chunk in tape.chunks[2:]:
        holding(chunk_memory, tape, chunk.index)
        chunk_memory.close(chunk, tape.seqs[chunk.index], slow=True)
    assert (chunk_memory.closed_bytes > 0, chunk_memory.unstarted_bytes) == (True, 0)
    first, second = (chunk_memory.work(chunk) for chunk in tape.chunks[2:])
    assert chunk_memory.start(second) is None, "there was no space for it beside the first one"
    assert chunk_memory.start(first) == [tape.fragments[seq] for seq in tape.seqs[2]]
    assert chunk_memory.closed_bytes == 0
    holding(chunk_memory, tape, 3)
    chunk_memory.close(tape.chunks[3], tape.seqs[3], slow=True)
    assert chunk_memory.start(second) is not None, "the place is free again"


async def test_over_the_budget_the_chunk_that_began_last_goes_whole_and_stays_away() -> None:
    """Breaks: each chunk is dropped shortly before its end, and the bytes of all are read twice."""
    old, young = TAPES[0], TAPES[2]
    total = sum(len(tape.fragments[seq].body) for tape in (old, young) for seq in tape.seqs[3])
    chunk_memory = ChunkMemory(total - 1, 1 << 20)
    holding(chunk_memory, replace(old, seqs=[[], [], [], old.seqs[3][:1]]), 3)
    holding(chunk_memory, young, 3)
    holding(chunk_memory, old, 3)  # the last of it is too much
    kept = sum(len(old.fragments[seq].body) for seq in old.seqs[3])
    assert chunk_memory.open_bytes == kept
    first = young.seqs[3][0]
    chunk_memory.add(young.uid, IDENTITY.host, first, young.fragments[first])
    assert chunk_memory.open_bytes == kept, "nothing more is kept of a chunk that must be read again anyway"
    for tape, found in ((young, False), (old, True)):
        chunk_memory.close(tape.chunks[3], tape.seqs[3])
        assert (chunk_memory.start(chunk_memory.work(tape.chunks[3])) is not None) is found
    holding(chunk_memory, young, 1)
    assert chunk_memory.open_bytes > 0, "the next chunk is kept again"


async def test_over_the_budget_a_host_with_more_than_its_share_drops_its_own_chunk() -> None:
    """Breaks: a host that opens chunks and never closes them drives all others out of memory."""
    greedy, other = TAPES[0], TAPES[1]
    size = {tape.uid: sum(len(tape.fragments[seq].body) for seq in tape.seqs[3]) for tape in (greedy, other)}
    chunk_memory = ChunkMemory(size[greedy.uid] + size[other.uid] - 1, 1 << 20)
    holding(chunk_memory, replace(greedy, seqs=[[], [], [], greedy.seqs[3][:-1]]), 3)
    for seq in other.seqs[3]:
        chunk_memory.add(other.uid, "other", seq, other.fragments[seq])
    last = greedy.seqs[3][-1]
    chunk_memory.add(greedy.uid, IDENTITY.host, last, greedy.fragments[last])
    assert chunk_memory.open_bytes == size[other.uid]


@pytest.mark.parametrize("short", [True, False])
async def test_an_idle_open_chunk_goes_where_memory_is_short(short: bool) -> None:
    """Breaks: chunks that nobody goes on with fill the memory, and all the others are read twice."""
    idle, new = TAPES[0], TAPES[1]
    size = sum(len(idle.fragments[seq].body) for seq in idle.seqs[3])
    chunk_memory = ChunkMemory(size + (0 if short else 1 << 20), 1 << 20)
    holding(chunk_memory, idle, 3)
    for seq in new.seqs[1]:
        chunk_memory.add(new.uid, "new", seq, new.fragments[seq])
    with patch.object(memory, "IDLE_S", -1.0):
        chunk_memory.evict_idle()
    assert (chunk_memory.open_bytes == 0) is short


@pytest.mark.parametrize("held", [True, False])
async def test_record_waits_when_half_of_its_memory_is_closed_and_not_started(held: bool) -> None:
    """Breaks: a stage that stands still does not stop the reader, and all that it reads is dropped."""
    tape = TAPES[1]
    chunk_memory = ChunkMemory(2 * tape.chunks[2].plain - 1, 1 << 20)
    if held:
        holding(chunk_memory, tape, 2)
    await asyncio.wait_for(chunk_memory.wait_for_space(), PATIENCE_S)
    chunk_memory.close(tape.chunks[2], tape.seqs[2])
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(chunk_memory.wait_for_space(), 0.01)
    chunk_memory.start(chunk_memory.work(tape.chunks[2]))
    await asyncio.wait_for(chunk_memory.wait_for_space(), PATIENCE_S)


async def test_credit_is_given_in_order_of_asking() -> None:
    """Breaks: small chunks pass a large one for ever."""
    credit, order = FairSlots(100), list[str]()

    async def take(name: str, size: int) -> None:
        await credit.take("host", size)
        order.append(name)

    await credit.take("host", 60)
    tasks = [asyncio.create_task(take(name, size)) for name, size in (("large", 90), ("small", 10))]
    await asyncio.sleep(0)
    assert order == []
    credit.give("host", 60)
    await asyncio.wait_for(asyncio.gather(*tasks), PATIENCE_S)
    assert (order, credit.used) == (["large", "small"], 100)


async def test_who_gives_up_waiting_lets_the_next_one_in() -> None:
    """Breaks: a stage stands still beside free memory, because the first of its queue went away."""
    credit = FairSlots(100)
    await credit.take("host", 60)
    first, second = (asyncio.create_task(credit.take("host", size)) for size in (90, 40))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.wait_for(second, PATIENCE_S)
    assert credit.used == 100


async def test_a_cancel_that_comes_with_the_credit_gives_it_back() -> None:
    """Breaks: every stop at the wrong moment costs the process a chunk's memory."""
    credit = FairSlots(100)
    await credit.take("host", 100)
    turn = asyncio.create_task(credit.take("host", 50))
    await asyncio.sleep(0)
    credit.give("host", 100)
    turn.cancel()
    with suppress(asyncio.CancelledError):
        await turn
    assert credit.used == 0


async def test_a_chunk_larger_than_all_credit_goes_alone() -> None:
    """Breaks: a worker with little memory never stores a large chunk."""
    credit = FairSlots(100)
    await asyncio.wait_for(credit.take("host", 500), PATIENCE_S)
    turn = asyncio.create_task(credit.take("host", 1))
    await asyncio.sleep(0)
    assert not turn.done()
    credit.give("host", 500)
    await asyncio.wait_for(turn, PATIENCE_S)
    assert credit.used == 1


@pytest.mark.parametrize("end", ["finish", "another"])
async def test_a_chunk_that_is_over_while_it_waits_keeps_no_credit(end: str) -> None:
    """Breaks: what another owner stored meanwhile holds memory until the process ends."""
    chunk_memory, tape = ChunkMemory(1 << 20, 1), TAPES[1]
    first, second = (chunk_memory.work(tape.chunks[n]) for n in (1, 2))
    await chunk_memory.take_credit(first)
    waiting = asyncio.create_task(chunk_memory.take_credit(second))
    await asyncio.sleep(0)
    if end == "finish":
        chunk_memory.finish(tape.uid, 2)
    else:
        chunk_memory.work(tape.chunks[2].model_copy(update={"host": "another"}))
    chunk_memory.finish(tape.uid, 1)
    await asyncio.wait_for(waiting, PATIENCE_S)
    assert chunk_memory.credit.used == 0


async def test_a_chunk_has_credit_once_however_often_it_comes() -> None:
    """Breaks: a redelivered chunk waits for the memory that it holds itself."""
    chunk_memory, tape = ChunkMemory(1 << 20, 1), TAPES[1]
    work = chunk_memory.work(tape.chunks[2])
    await chunk_memory.take_credit(work)
    await asyncio.wait_for(chunk_memory.take_credit(work), PATIENCE_S)
    chunk_memory.finish(tape.uid, 2)
    assert chunk_memory.credit.used == 0


async def test_a_chunk_that_comes_twice_while_it_waits_is_given_credit_once() -> None:
    """Breaks: as above, and its second credit is never given back."""
    chunk_memory, tape = ChunkMemory(1 << 20, 5000), TAPES[1]
    first, second = (chunk_memory.work(tape.chunks[n]) for n in (3, 1))
    await chunk_memory.take_credit(first)
    twice = [asyncio.create_task(chunk_memory.take_credit(second)) for _ in range(2)]
    await asyncio.sleep(0)
    assert chunk_memory.credit.used == first.credit
    chunk_memory.finish(tape.uid, 3)
    await asyncio.wait_for(asyncio.gather(*twice), PATIENCE_S)
    assert chunk_memory.credit.used == second.credit > 0


async def test_a_chunk_in_work_is_not_evicted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks: a slow job's credit is given to another chunk, and its result is made twice."""
    monkeypatch.setattr(memory, "IDLE_S", 0.0)
    chunk_memory, tape = ChunkMemory(1 << 20, 1 << 20), TAPES[1]
    work = chunk_memory.work(tape.chunks[2])
    await chunk_memory.take_credit(work)
    work.jobs += 1
    chunk_memory.evict_idle()
    assert chunk_memory.find(tape.uid, 2) is work
    work.jobs -= 1
    chunk_memory.evict_idle()
    assert chunk_memory.find(tape.uid, 2) is None
    assert chunk_memory.credit.used == 0
