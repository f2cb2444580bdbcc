"""The live streams of one process over a real server: shares of callers, garbage, and the end of each."""

import asyncio
import json
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


async def test_a_stream_ends_in_order_when_its_time_is_over(
    jet: Jet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks: whoever has a token once follows a session for ever, also after it has expired."""
    monkeypatch.setattr(live, "LONGEST_S", 0.3)
    await topology.declare(jet, 1 << 30)
    async with asyncio.timeout(PATIENCE_S):
        assert [event async for event in LiveEvents(jet).follow(SESSION, None)] == []
