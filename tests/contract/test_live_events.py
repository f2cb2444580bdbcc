"""The live streams of one process over a real server: shares of callers, garbage, and the end of each."""

import asyncio
import json
import math
import time
from contextlib import ExitStack, aclosing

import pytest

from infra.jetstream import Jet
from schemas import subjects
from schemas.errors import Busy
from streams.api import live
from streams.api.live import CLIENTS_MOST, ONE_CALLER, LiveEvents
from streams.event_store import topology
from tests.support.machine.waiting import PATIENCE_S

SESSION = "watched"


def test_one_caller_leaves_places_to_all_others(jet: Jet) -> None:
    """Breaks: one person opens two hundred streams, and nobody else can watch."""
    streams = LiveEvents(jet)
    with ExitStack() as held:
        for _ in range(ONE_CALLER):
            held.enter_context(streams.place("greedy"))
        with pytest.raises(Busy) as refused:
            held.enter_context(streams.place("greedy"))
        assert refused.value.code == "live.limit"
        for number in range(ONE_CALLER, CLIENTS_MOST):
            held.enter_context(streams.place(f"caller-{number}"))
        with pytest.raises(Busy):
            held.enter_context(streams.place("one-more"))
    with streams.place("greedy"):
        pass


@pytest.mark.parametrize(
    "garbage", [b"", b"\xff{", b"[" * 100_000, b"[]", b"7", b'{"index": "x"}', b'{"chunks": {}}']
)
async def test_a_message_that_is_no_event_does_not_end_a_stream(jet: Jet, garbage: bytes) -> None:
    """Breaks: one message of a stranger ends the live view of a session, again at each reconnect."""
    await topology.declare(jet, 1 << 30)
    subject = subjects.chunk("stored", SESSION)
    await jet.publish(subject, garbage)
    await jet.publish(subject, b'{"index": 7}')
    async with asyncio.timeout(PATIENCE_S), aclosing(LiveEvents(jet).follow(SESSION, None)) as events:
        async for event in events:
            if b'"index"' in event:
                break
    assert json.loads(event.partition(b"data: ")[2]) == {"event": "Chunk", "step": "stored", "index": 7}


@pytest.mark.parametrize(("longest_s", "token_s"), [(0.3, math.inf), (PATIENCE_S, 0.3), (PATIENCE_S, -1)])
async def test_a_stream_ends_in_order_when_its_time_is_over(
    jet: Jet, monkeypatch: pytest.MonkeyPatch, longest_s: float, token_s: float
) -> None:
    """Breaks: whoever has a token once follows a session for ever, also after it has expired."""
    monkeypatch.setattr(live, "LONGEST_S", longest_s)
    await topology.declare(jet, 1 << 30)
    async with asyncio.timeout(PATIENCE_S / 2):
        events = LiveEvents(jet).follow(SESSION, None, time.time() + token_s)
        assert [event async for event in events] == []


async def test_the_present_events_come_and_then_the_end(jet: Jet) -> None:
    """Breaks: a script that wants the state until now waits for an hour."""
    await topology.declare(jet, 1 << 30)
    for index in range(3):
        await jet.publish(subjects.chunk("stored", SESSION), b'{"index": %d}' % index)
    async with asyncio.timeout(PATIENCE_S):
        streams = LiveEvents(jet)
        told = [event async for event in streams.follow(SESSION, None, only_present=True)]
        assert [json.loads(event.partition(b"data: ")[2])["index"] for event in told] == [0, 1, 2]
        last_id = told[-1].partition(b"id: ")[2].partition(b"\n")[0].decode()
        assert [event async for event in streams.follow(SESSION, last_id, only_present=True)] == []
        assert [event async for event in streams.follow("nobody", None, only_present=True)] == []
