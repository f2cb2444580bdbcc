"""Long bodies in pieces: bounded memory, keys that are erased meanwhile, callers that go away."""

import asyncio
from collections.abc import AsyncGenerator, MutableMapping
from contextlib import aclosing
from typing import Any

import pytest
from starlette.requests import Request

from schemas.errors import Busy, Denied, RefusedByState
from streams.api import transfers
from streams.api.transfers import (
    CHUNKS_MOST,
    EXPORTS_MOST,
    EXPORTS_ONE,
    LINES_BYTES,
    LISTS_MOST,
    LISTS_ONE,
    ONE_CALLER,
    PIECE_BYTES,
    Pieces,
    Read,
    Transfers,
    check_while_sent,
    cut_off,
)
from tests.support.machine.waiting import PATIENCE_S


class Chunks:
    """Chunks that are read on demand; counts those that were read and not yet left behind."""

    def __init__(self, count: int, size: int = 10) -> None:
        self.count, self.size, self.read = count, size, 0
        self.second = asyncio.Event()

    def reads(self) -> list[Read]:
        return [self._reader(number) for number in range(self.count)]

    def _reader(self, number: int) -> Read:
        async def read() -> memoryview:
            await asyncio.sleep(0)
            self.read += 1
            if self.read == 2:
                self.second.set()
            return memoryview(bytes([number]) * self.size)

        return read


async def stands() -> None:
    """The key was not erased."""


async def test_many_transfers_at_once_hold_few_chunks_and_lose_no_byte() -> None:
    """Breaks: sixty-four downloads take the memory of the whole service."""
    slots = Transfers()
    most = 0

    async def one(number: int) -> bytes:
        nonlocal most
        got = b""
        async with aclosing(slots.pieces(f"caller-{number % 4}", Chunks(5).reads(), stands)) as pieces:
            async for piece in pieces:
                most = max(most, slots.held)
                got += piece
                await asyncio.sleep(0)
        return got

    async with asyncio.timeout(PATIENCE_S):
        found = await asyncio.gather(*map(one, range(64)))
    assert set(found) == {b"".join(bytes([number]) * 10 for number in range(5))}
    assert 1 < most <= CHUNKS_MOST
    assert slots.held == 0


async def test_a_caller_that_takes_nothing_leaves_slots_to_others() -> None:
    """Breaks: one caller opens many downloads, reads none, and nobody else gets a byte."""
    slots = Transfers()
    stuck = [slots.pieces("greedy", Chunks(5).reads(), stands) for _ in range(3 * ONE_CALLER)]
    waiting = [asyncio.ensure_future(anext(pieces)) for pieces in stuck]
    await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    async with asyncio.timeout(PATIENCE_S), aclosing(slots.pieces("other", Chunks(9).reads(), stands)) as own:
        assert len([piece async for piece in own]) == 9
    for one in waiting:
        one.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    for pieces in stuck:
        await pieces.aclose()
    assert slots.held == 0


async def test_bytes_that_were_read_before_the_key_was_erased_do_not_leave() -> None:
    """Breaks: the session is destroyed, and its next chunk still goes out because it was read ahead."""
    chunks, slots, erased = Chunks(4), Transfers(), False

    async def check() -> None:
        if erased:
            raise RefusedByState("it was destroyed", code="keys.shredded")

    async with asyncio.timeout(PATIENCE_S), aclosing(slots.pieces("caller", chunks.reads(), check)) as pieces:
        assert bytes(await anext(pieces)) == b"\0" * 10
        await chunks.second.wait()
        erased = True
        with pytest.raises(RefusedByState):
            await anext(pieces)
    assert slots.held == 0


async def test_nothing_more_is_read_for_a_caller_that_has_hung_up() -> None:
    """Breaks: requests that are given up at once keep the service busy for hours."""
    chunks, slots, started = Chunks(1000), Transfers(), asyncio.Event()
    sent = 0

    async def send(message: MutableMapping[str, Any]) -> None:
        nonlocal sent
        sent += 1
        started.set()
        await asyncio.sleep(0)

    async def receive() -> MutableMapping[str, Any]:
        await started.wait()
        return {"type": "http.disconnect"}

    answer = Pieces(slots.pieces("caller", chunks.reads(), stands), 200, {}, "application/octet-stream")
    scope: dict[str, Any] = {"type": "http"}
    await answer(scope, receive, send)
    assert chunks.read < 100
    assert slots.held == 0
    assert cut_off(Request(scope))


async def test_a_caller_that_is_too_slow_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks: a caller that never reads holds a chunk in memory for ever."""
    monkeypatch.setattr(transfers, "PIECE_S", 0.05)
    slots, never = Transfers(), asyncio.Event()
    sent: list[MutableMapping[str, Any]] = []

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)
        if len(sent) == 4:
            await never.wait()

    async def receive() -> MutableMapping[str, Any]:
        await never.wait()
        raise AssertionError

    chunks = Chunks(3, 2 * PIECE_BYTES)
    answer = Pieces(slots.pieces("caller", chunks.reads(), stands), 200, {}, "application/octet-stream")
    async with asyncio.timeout(PATIENCE_S):
        scope: dict[str, Any] = {"type": "http"}
        await answer(scope, receive, send)
    assert cut_off(Request(scope))
    bodies = [len(message["body"]) for message in sent[1:]]
    assert bodies == [PIECE_BYTES, PIECE_BYTES, PIECE_BYTES]
    assert all(message["more_body"] for message in sent[1:])  # never called whole
    assert slots.held == 0


@pytest.mark.parametrize("length", [{}, {"Content-Length": "30"}])
async def test_a_transfer_that_came_to_its_end_is_whole(length: dict[str, str]) -> None:
    """Breaks: the audit chain calls a transfer broken off that the caller has whole."""
    sent, ended = 0, asyncio.Event()

    async def send(message: MutableMapping[str, Any]) -> None:
        nonlocal sent
        sent += len(message.get("body", b""))
        if sent == 30 and (length or not message.get("more_body", True)):
            ended.set()  # the caller has what it wants, and closes

    async def receive() -> MutableMapping[str, Any]:
        await ended.wait()
        await asyncio.sleep(0)
        return {"type": "http.disconnect"}

    scope: dict[str, Any] = {"type": "http"}
    pieces = Transfers().pieces("caller", Chunks(3).reads(), stands)
    await Pieces(pieces, 200, length, "application/octet-stream")(scope, receive, send)
    assert sent == 30
    assert not cut_off(Request(scope))


async def test_a_zip_holds_a_slot_of_its_caller_until_it_ends() -> None:
    """Breaks: one caller begins a hundred exports, and each holds a chunk in memory."""
    slots = Transfers()
    held = [slots.zipped("greedy", iter([b"zip"] * 3)) for _ in range(EXPORTS_ONE + 1)]
    *first, refused = await asyncio.gather(*(anext(one) for one in held), return_exceptions=True)
    assert [bytes(one) for one in first if isinstance(one, memoryview)] == [b"zipzipzip"] * EXPORTS_ONE
    assert isinstance(refused, Busy)
    assert refused.code == "exports.limit"
    async with aclosing(slots.zipped("other", iter([b"zip"]))) as other:
        assert [bytes(piece) async for piece in other] == [b"zip"]
    await held[0].aclose()
    async with aclosing(slots.zipped("greedy", iter([b"zip"]))) as again:
        assert [bytes(piece) async for piece in again] == [b"zip"]
    await held[1].aclose()
    assert slots.held == 0


async def test_all_zips_together_are_bounded() -> None:
    """Breaks: many callers export at once, and the service runs out of memory."""
    slots = Transfers()
    held = [slots.zipped(f"caller-{number}", iter([b"zip"])) for number in range(EXPORTS_MOST + 1)]
    found = await asyncio.gather(*(anext(one) for one in held), return_exceptions=True)
    assert [type(one) for one in found] == [memoryview] * EXPORTS_MOST + [Busy]
    for one in held:
        await one.aclose()


class Lines:
    """A log of many lines; counts those that were read, and whether its reader was closed."""

    def __init__(self, count: int = 100_000) -> None:
        self.count, self.read, self.is_closed = count, 0, False

    async def __call__(self) -> AsyncGenerator[bytes, None]:
        try:
            while self.read < self.count:
                self.read += 1
                yield b"%099d" % self.read
        finally:
            self.is_closed = True


async def test_a_list_is_read_as_it_is_taken_and_every_line_comes() -> None:
    """Breaks: a history of a hundred thousand events is held whole, for each caller that asks for it."""
    slots, log, got = Transfers(), Lines(), 0
    async with aclosing(slots.lines("caller", log())) as pieces:
        async for piece in pieces:
            got += len(piece)
            assert len(piece) <= LINES_BYTES + 100
            assert log.read * 100 == got
    assert got == log.count * 100


async def test_lists_are_bounded_and_give_their_slots_back() -> None:
    """Breaks: one caller opens a thousand audit exports, and the server has no readers left for others."""
    slots, logs = Transfers(), [Lines() for _ in range(LISTS_MOST + LISTS_ONE)]
    own = [slots.lines("greedy", log()) for log in logs[:LISTS_ONE]]
    others = [slots.lines(f"caller-{number}", log()) for number, log in enumerate(logs[LISTS_ONE:])]
    for one in own:
        await anext(one)
    with pytest.raises(Busy) as refused:
        await anext(slots.lines("greedy", Lines()()))
    assert refused.value.code == "lists.limit"
    for one in others[: LISTS_MOST - LISTS_ONE]:
        await anext(one)
    with pytest.raises(Busy):
        await anext(others[-1])
    await own[0].aclose()
    assert logs[0].is_closed
    await anext(slots.lines("greedy", Lines()()))
    for one in (*own, *others):
        await one.aclose()


async def test_a_transfer_ends_soon_after_the_right_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks: a second person takes an approval back, and the whole recording still leaves."""
    monkeypatch.setattr(transfers, "CHECK_S", 0.0)
    slots, never, sent, asked = Transfers(), asyncio.Event(), 0, 0

    async def send(message: MutableMapping[str, Any]) -> None:
        nonlocal sent
        sent += len(message.get("body", b""))

    async def receive() -> MutableMapping[str, Any]:
        await never.wait()
        raise AssertionError

    async def check() -> None:
        nonlocal asked
        asked += 1
        if asked > 2:
            raise Denied("request 1 was refused", code="access.ended")

    scope: dict[str, Any] = {"type": "http"}
    check_while_sent(Request(scope), check)
    async with asyncio.timeout(PATIENCE_S):
        pieces = slots.pieces("caller", Chunks(9).reads(), stands)
        await Pieces(pieces, 200, {}, "application/octet-stream")(scope, receive, send)
    assert (sent, cut_off(Request(scope))) == (20, "access.ended")
    assert slots.held == 0
