"""Room for data: a publisher that may not send, and a platform that does not answer."""

import asyncio

import pytest

from schemas.errors import NoSpace, Unavailable
from schemas.format.fragment import GapBody, Kind
from streams.host import publisher
from streams.host.publisher import Progress, Publisher
from streams.host.send_quota import UNANSWERED_BYTES, SendQuota
from streams.host.source_feed import publish
from tests.support.evidence.published import Stream, blocks, check_chain, grant
from tests.support.machine.waiting import PATIENCE_S, until

SOME = 65_536


class Platform:
    """Answers with what it is told to; None: nobody answers."""

    def __init__(self, *answers: int | None) -> None:
        self.answers = list(answers)
        self.asked: list[int] = []

    async def __call__(self, sending: int) -> tuple[int, float]:
        self.asked.append(sending)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if answer is None:
            raise Unavailable("nobody", code="nats.nobody")
        return answer, 0.96


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publisher, "QUOTA_RETRY_S", 0.005)
    monkeypatch.setattr(publisher, "TICK_S", 0.02)


def kinds(stream: Stream) -> list[Kind]:
    return [fragment.header.kind for fragment in stream.in_order()]


async def waiting(told: list[Progress]) -> None:
    """Return when the publisher has said that it waits."""
    await until(lambda: told and "space" in told[-1].trouble)


async def test_data_waits_for_room_while_ticks_go() -> None:
    """Breaks: a full stream takes data to the last byte, or its hosts look dead."""
    stream, told = Stream(), list[Progress]()
    platform = Platform(SOME, 0)
    writer = Publisher(stream, grant(), told.append, quota=SendQuota(platform))
    sending = asyncio.create_task(publish(blocks(bytes(3 * SOME)), writer, "opaque"))
    await waiting(told)
    assert told[-1].trouble == "recordings fill 96% of their space, data waits for room"
    await until(lambda: kinds(stream).count(Kind.TICK) >= 2)
    assert kinds(stream).count(Kind.DATA) == 1
    platform.answers = [10 * SOME]
    await sending
    assert (await writer.finish()).trouble == ""
    assert check_chain(stream.in_order()) == bytes(3 * SOME)
    times = [fragment.header.time_us for fragment in stream.in_order()]
    assert times == sorted(times)


async def test_who_ends_a_recording_that_waits_gets_its_end_and_is_told_what_is_missing() -> None:
    """Breaks: a session cannot end when the disk is full; or its last seconds vanish without a word."""
    stream, told = Stream(), list[Progress]()
    platform = Platform(SOME, 0)
    writer = Publisher(stream, grant(), told.append, quota=SendQuota(platform))
    sending = asyncio.create_task(publish(blocks(bytes(3 * SOME)), writer, "opaque"))
    await waiting(told)
    writer.stop_waiting()
    await asyncio.wait_for(sending, PATIENCE_S)
    platform.answers = [10 * SOME]
    await writer.send(b"what comes after a hole is not sent as if there were none")
    with pytest.raises(NoSpace, match=r"record\.cut"):
        await writer.finish()
    assert kinds(stream)[-2:] == [Kind.GAP, Kind.FINAL]
    body = GapBody.parse(stream.in_order()[-2].clear)
    assert body.reason == "no_space"
    assert 0 < body.from_us <= body.to_us
    assert check_chain(stream.in_order()) == bytes(SOME)


async def test_an_ending_gives_nothing_up_where_there_is_room() -> None:
    """Breaks: every Ctrl-C cuts a recording's tail."""
    stream = Stream()
    writer = Publisher(stream, grant(), quota=SendQuota(Platform(1 << 30)))
    writer.stop_waiting()
    await publish(blocks(b"a", b"b"), writer, "opaque")
    await writer.finish()
    assert check_chain(stream.in_order()) == b"ab"


async def test_it_asks_when_its_allowance_is_used_and_says_what_is_under_way() -> None:
    """Breaks: every fragment costs a question; or what is under way is promised to others."""
    platform = Platform(100)
    room = SendQuota(platform)
    assert [await room.take(40, sending) for sending in range(6)] == [True] * 6
    assert platform.asked == [0, 3]


async def test_nobody_who_answers_stops_no_recording_until_the_stream_itself_refuses() -> None:
    """Breaks: a restart of the command service freezes every recording; or a full stream is flooded."""
    room = SendQuota(Platform(None, None, None, 0, None, 100))
    assert await room.take(UNANSWERED_BYTES, 0)
    assert await room.take(1, 0)
    room.refuse()
    assert room.filled == 1.0
    assert not await room.take(1, 0)
    assert not await room.take(1, 0), "an answer: none"
    assert await room.take(1, 0), "not refused any more, and nobody answers"


async def test_a_refusal_of_the_stream_is_a_question() -> None:
    """Breaks: a host goes on for 64 MB into a stream that is full."""

    class Full(Stream):
        refusals = 1

        async def publish(self, subject: str, data: bytes, headers: object = None) -> object:
            if len(self.fragments) == 2 and self.refusals:
                self.refusals -= 1
                raise NoSpace("full", code="stream.full")
            return await super().publish(subject, data, headers)  # type: ignore[arg-type]

    platform = Platform(1 << 30)
    stream = Full()
    writer = Publisher(stream, grant(), quota=SendQuota(platform))
    await writer.begin_part("opaque", "start")
    await writer.send(b"x")
    await until(lambda: len(stream.fragments) == 2)
    await writer.send(b"x")
    await until(lambda: not stream.refusals)
    await writer.send(b"x")
    await writer.finish()
    assert len(platform.asked) == 2
