"""The publisher's window, against a stream that refuses, forgets its ack, or is slow."""

import asyncio
import random
from collections.abc import Mapping

import pytest

from schemas.config.backoff import Backoff
from schemas.errors import LucidError, Rejected, Unavailable
from schemas.format.fragment import WINDOW
from streams.host import outbox
from streams.host.outbox import Outbox
from streams.scheduling.retry import Policy
from tests.support.machine.waiting import until


class Stream:
    """Holds what was published; `faults` says what befalls each attempt."""

    def __init__(self) -> None:
        self.held: list[bytes] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.faults: dict[bytes, list[str]] = {}

    async def publish(self, data: bytes, headers: Mapping[str, str]) -> None:
        await self.gate.wait()
        await asyncio.sleep(0)
        match self.faults.get(data, []):
            case ["failed", *rest]:
                self.faults[data] = rest
                raise Unavailable("no", code="nats.timeout")
            case ["failed but kept", *rest]:
                self.faults[data] = rest
                self.held.append(data)
                raise Unavailable("no", code="nats.timeout")
            case ["refused"]:
                raise Rejected("never", code="nats.too_large")
        self.held.append(data)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "SEND", Policy(Backoff(0.001, 0.01)))


def name(k: int) -> bytes:
    return k.to_bytes(4, "big")


async def test_a_fragment_a_window_ahead_waits_for_the_oldest() -> None:
    """Breaks: the fold's early window overflows, and a gap is declared where nothing was lost."""
    stream = Stream()
    box = Outbox(stream.publish)
    stream.faults[name(0)] = ["failed"] * 1000
    sent = 0

    async def send_all() -> None:
        nonlocal sent
        for k in range(3 * WINDOW):
            await box.send(name(k), {})
            sent = k + 1

    sending = asyncio.create_task(send_all())
    await until(lambda: len(stream.held) >= WINDOW - 1 and len(stream.faults[name(0)]) < 990)
    assert sent == WINDOW
    assert name(WINDOW) not in stream.held
    stream.faults.clear()
    await sending
    await box.drain()
    assert sorted(stream.held) == [name(k) for k in range(3 * WINDOW)]


async def test_what_failed_is_sent_again_with_the_same_bytes() -> None:
    """Breaks: a lost ack loses a fragment, or makes a second one with its number."""
    chance, stream = random.Random(5), Stream()
    troubles: list[LucidError] = []
    box = Outbox(stream.publish, troubles.append)
    for k in range(200):
        stream.faults[name(k)] = [chance.choice(["failed", "failed but kept"])] * chance.randint(0, 3)
    faults = sum(map(len, stream.faults.values()))
    for k in range(200):
        await box.send(name(k), {}, barrier=chance.random() < 0.1)
    await box.drain()
    assert set(stream.held) == {name(k) for k in range(200)}
    assert len(troubles) == faults
    assert box.acknowledged == 200


async def test_a_barrier_waits_for_all_before_it_and_is_waited_for() -> None:
    """Breaks: a part overtakes the end of the part before, which then looks lost."""
    stream = Stream()
    box = Outbox(stream.publish)
    stream.faults[name(1)] = ["failed"] * 3
    for k in range(5):
        await box.send(name(k), {})
    stream.faults[b"part"] = ["failed"] * 3
    await box.send(b"part", {}, barrier=True)
    assert stream.held[-1] == b"part"
    assert len(stream.held) == 6


async def test_the_window_is_bounded_in_bytes_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks: a host with a slow line fills its memory."""
    monkeypatch.setattr(outbox, "WINDOW_BYTES", 1000)
    stream = Stream()
    stream.gate.clear()
    box = Outbox(stream.publish)
    await box.send(bytes(5000), {})  # a single one always goes
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(box.send(bytes(1), {}), 0.02)
    stream.gate.set()
    await box.send(bytes(1), {})
    await box.drain()
    assert len(stream.held) == 2


async def test_what_is_refused_for_good_stops_the_sender() -> None:
    """Breaks: a recorder goes on for hours although nothing it sends is kept."""
    stream = Stream()
    box = Outbox(stream.publish)
    stream.faults[b"bad"] = ["refused"]
    await box.send(b"bad", {})
    with pytest.raises(Rejected, match=r"nats\.too_large"):
        await box.drain()
    with pytest.raises(Rejected, match=r"nats\.too_large"):
        await box.send(b"good", {})
    await box.close()
