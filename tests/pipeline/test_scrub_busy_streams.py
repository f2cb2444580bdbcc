"""The check of a stream in which sessions go on: new messages neither look like a hole nor hide one."""

from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from infra.jetstream import Jet
from infra.keys.signers import Signers
from infra.nats_server.server import NatsServer
from schemas import subjects
from schemas.ports.messages import Message, StreamInfo
from streams.evidence.scrub_pace import ScrubPace
from streams.evidence.stream_proof import MESSAGE_BYTES, StreamProof
from tests.support.pipeline.conducted import connected

STREAM = subjects.CHUNKS
LIVE = subjects.chunk(subjects.STORED, "demo-01")
MESSAGES = 700


class Busy:
    """A connection of which each first look at the stream is followed by new messages."""

    def __init__(self, jet: Jet, hole: int = 0) -> None:
        self._jet, self._hole = jet, hole

    def __getattr__(self, name: str) -> Any:
        return getattr(self._jet, name)

    async def info(self, stream: str) -> StreamInfo:
        found = await self._jet.info(stream)
        await self._jet.publish(LIVE, b"{}")
        return found

    async def subject_counts(self, stream: str, subject: str) -> dict[str, int]:
        counts = await self._jet.subject_counts(stream, subject)
        return {name: count + self._hole for name, count in counts.items()}

    async def read_all(self, stream: str, subject: str, from_seq: int = 1) -> AsyncIterator[Message]:
        await self._jet.publish(LIVE, b"{}")
        async for message in self._jet.read_all(stream, subject, from_seq):
            yield message


@pytest.fixture
def spent(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The bytes that the rate was asked for."""
    sizes: list[int] = []

    async def spend(_: ScrubPace, size: int) -> None:
        sizes.append(size)

    monkeypatch.setattr(ScrubPace, "spend", spend)
    return sizes


async def checked(server: NatsServer, path: Path, hole: int) -> list[tuple[str, str]]:
    """Session and code of what the check of a busy stream finds."""
    async with connected(server, path) as world:
        for _ in range(MESSAGES):
            await world.jet.publish(LIVE, b"{}")
        jet: Any = Busy(world.jet, hole)
        with ThreadPoolExecutor(1) as disk:
            proof = StreamProof(jet, Signers(world.data.keys), ScrubPace(jet, 1e9), disk)
            looks = [look async for look in proof.check(STREAM)]
    return [(session, one.fault.code) for session, one in looks if one.fault and session]


async def test_messages_that_come_during_a_check_are_no_hole_and_are_read_at_the_rate(
    server: NatsServer, tmp_path: Path, spent: list[int]
) -> None:
    """Breaks: on a busy system the scrub reads each running session whole, without its bound."""
    assert await checked(server, tmp_path, 0) == []
    assert sum(spent) >= 2 * MESSAGES * MESSAGE_BYTES


async def test_messages_that_come_during_a_check_hide_no_hole(
    server: NatsServer, tmp_path: Path, spent: list[int]
) -> None:
    """Breaks: an event of a running session is gone, and each new one covers it."""
    assert await checked(server, tmp_path, 1) == [("demo-01", "stream.hole")]
