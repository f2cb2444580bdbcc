"""The publisher, read back with the platform's key from a stream that holds what it was sent."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from handlers.format.fragment import open_data
from infra.capture.drawn_desktop import drawn, record_desktop
from schemas.config.backoff import Backoff
from schemas.errors import Misuse, Unavailable
from schemas.format.fragment import KEY_FRAME, FinalBody, Fragment, Kind, PartBody, PartSettings
from schemas.format.fragment_bodies import GapBody
from schemas.ports.processes import NewPart, Picture
from streams.host import fragment_message, outbox, publisher, source_feed
from streams.host.publisher import Progress, Publisher
from streams.host.source_feed import publish
from streams.scheduling.retry import Policy
from tests.support.evidence.published import KEYS, Stream, blocks, check_chain, grant
from tests.support.machine.waiting import until


def plain_of(fragments: list[Fragment]) -> bytes:
    """The plain bytes of one part, which its first fragment begins."""
    key = KEYS.open_part_key(fragments[0])
    return b"".join(open_data(key, one) for one in fragments if one.header.kind is Kind.DATA)


@pytest.fixture(scope="module")
def fragmented() -> bytes:
    """A short film as an encoder of ours writes it."""
    return drawn(3, Picture(320, 240, 10, key_frame_s=1))


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "SEND", Policy(Backoff(0.001, 5.0)))


async def test_every_byte_arrives_under_one_unbroken_signed_chain() -> None:
    """Breaks: a recording on a bad line has holes, or bytes that nobody signed."""
    stream = Stream(flaky=True)
    writer = Publisher(stream, grant())
    data = [bytes([k]) * (50_000 * k + 1) for k in range(8)]
    await publish(blocks(*data), writer, "opaque")
    done = await writer.finish()
    fragments = stream.in_order()
    assert check_chain(fragments) == b"".join(data)
    assert (fragments[0].header.kind, fragments[-1].header.kind) == (Kind.PART, Kind.FINAL)
    assert max(fragment.plain for fragment in fragments) <= (1 << 18) // 4
    assert (done.fragments, done.acknowledged, done.plain) == (
        len(fragments),
        len(fragments),
        len(b"".join(data)),
    )


async def test_final_names_the_last_fragment_and_comes_after_it() -> None:
    """Breaks: a cut tail goes unseen, because final says nothing of it."""
    stream = Stream(flaky=True)
    writer = Publisher(stream, grant())
    await publish(blocks(*[b"x" * 1000] * 30), writer, "opaque")
    await writer.finish()
    *before, last, final = stream.in_order()
    assert stream.fragments[-1] is final
    (tail,) = FinalBody.parse(final.clear).tracks
    assert (tail.id, tail.last_seq, tail.head, tail.plain) == (0, len(before), last.head, 30_000)


async def test_only_the_first_block_of_a_key_frame_carries_its_flag() -> None:
    """Breaks: chunks are cut in the middle of a key frame."""
    stream = Stream()
    writer = Publisher(stream, grant())
    await writer.begin_part("x264", "start")
    await writer.send(bytes(200_000), key_frame=True)
    await writer.send(bytes(10))
    await writer.finish()
    flags = [f.header.flags & KEY_FRAME for f in stream.in_order() if f.header.kind is Kind.DATA]
    assert flags == [1, 0, 0, 0, 0]


async def test_a_real_recording_is_flagged_at_its_key_frames() -> None:
    """Breaks: every chunk of a video begins where no player can begin."""
    stream = Stream()
    writer = Publisher(stream, grant(16 << 20))
    async with await record_desktop(2, Picture(640, 360, 10, key_frame_s=1)) as capture:
        await publish(aiter(capture), writer, "x264")
    await writer.finish()
    fragments = stream.in_order()
    assert check_chain(fragments)[4:8] == b"ftyp"
    assert sum(f.header.flags & KEY_FRAME for f in fragments) == 2


async def test_an_idle_source_makes_ticks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks: a host that shows a still screen looks like one that is gone."""
    monkeypatch.setattr(publisher, "TICK_S", 0.02)

    async def slow() -> AsyncIterator[bytes]:
        yield b"one"
        await until(lambda: [one.header.kind for one in stream.fragments].count(Kind.TICK) >= 2)
        yield b"two"

    stream = Stream()
    writer = Publisher(stream, grant())
    await publish(slow(), writer, "opaque")
    await writer.finish()
    assert check_chain(stream.in_order()) == b"onetwo"


async def test_nothing_is_read_in_a_pause_and_what_follows_stands_behind_a_resume() -> None:
    """Breaks: what is on the screen in a pause is recorded, or what is not looks as if it were."""
    one, two = b"1" * (1 << 16), b"2" * 100
    read: list[bytes] = []

    async def source() -> AsyncIterator[bytes]:
        for block in (one, two):
            read.append(block)
            yield block

    def hold(progress: Progress) -> None:
        if progress.fragments == 2:
            writer.pause_sending("asked")

    stream = Stream()
    writer = Publisher(stream, grant(), hold)
    sending = asyncio.create_task(publish(source(), writer, "opaque"))
    await until(lambda: Kind.PAUSE in [sent.header.kind for sent in stream.fragments])
    for _ in range(10):
        await asyncio.sleep(0)
    assert read == [one]
    writer.stop_waiting()
    await sending
    await writer.finish()
    fragments = stream.in_order()
    kinds = [sent.header.kind for sent in fragments]
    assert kinds == [Kind.PART, Kind.DATA, Kind.PAUSE, Kind.RESUME, Kind.DATA, Kind.FINAL]
    assert check_chain(fragments) == one + two


async def test_host_time_never_runs_backwards() -> None:
    """Breaks: a clock that is set back makes a chunk end before it begins."""
    clock = iter([100, 200, 50, 60, 300, 10, 10])
    stream = Stream()
    writer = Publisher(stream, grant(), clock_us=lambda: next(clock))
    await writer.begin_part("opaque", "start")
    for _ in range(4):
        await writer.send(b"x")
    await writer.finish()
    assert [f.header.time_us for f in stream.in_order()] == [100, 200, 200, 200, 300, 300]


async def test_a_source_that_fails_is_not_called_finished() -> None:
    """Breaks: half a recording gets a final, and is sealed as if it were whole; or what it gave is lost."""

    async def broken() -> AsyncIterator[bytes]:
        yield b"one"
        raise Unavailable("the encoder failed", code="capture.failed")

    stream = Stream()
    writer = Publisher(stream, grant())
    with pytest.raises(Unavailable, match=r"capture\.failed"):
        await publish(broken(), writer, "opaque")
    assert Kind.FINAL not in [fragment.header.kind for fragment in stream.fragments]
    await writer.break_off("capture.failed")
    _, _, gap, final = stream.in_order()
    assert (gap.header.kind, final.header.kind) == (Kind.GAP, Kind.FINAL)
    assert GapBody.parse(gap.clear).reason == "capture.failed"
    assert check_chain(stream.in_order()) == b"one"


async def test_what_was_read_is_sent_before_its_box_is_whole(
    fragmented: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks: a recorder that is killed loses all that it had read of a box, be it 16 MB and a minute old."""
    monkeypatch.setattr(source_feed, "HOLD_S", 0.01)
    begin = fragmented.index(b"moof") - 4
    half = fragmented[: (begin + len(fragmented)) // 2]

    async def stalls() -> AsyncIterator[bytes]:
        yield half
        await until(lambda: check_chain(stream.in_order()) == half)
        yield fragmented[len(half) :]

    stream = Stream()
    writer = Publisher(stream, grant())
    await publish(stalls(), writer, "opaque")
    await writer.finish()
    assert check_chain(stream.in_order()) == fragmented


@pytest.mark.parametrize("container", ["mp4", "unknown"])
async def test_a_source_of_single_bytes_is_sent_in_few_fragments(
    container: str, fragmented: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks: a source that dribbles costs a durable message for each byte."""
    data = fragmented[:3000] if container == "mp4" else b"x" * 3000
    stream = Stream()
    writer = Publisher(stream, grant())
    await publish(blocks(*(data[at : at + 1] for at in range(len(data)))), writer, "opaque")
    await writer.finish()
    assert check_chain(stream.in_order()) == data
    assert len(stream.fragments) < 10


async def test_another_film_in_one_source_begins_a_part(fragmented: bytes) -> None:
    """Breaks: a recording whose picture changed its size plays up to there, and its rest cannot be had."""
    stream = Stream()
    writer = Publisher(stream, grant())
    await publish(blocks(fragmented + fragmented[:-5], fragmented[-5:] + fragmented), writer, "opaque")
    await writer.finish()
    fragments = stream.in_order()
    assert check_chain(fragments) == 3 * fragmented
    parts = [fragment for fragment in fragments if fragment.header.kind is Kind.PART]
    assert [PartSettings.parse(PartBody.parse(one.clear).settings).reason for one in parts] == [
        "start",
        "another_film",
        "another_film",
    ]
    films = [Stream(), Stream(), Stream()]
    for fragment in fragments:
        films[fragment.header.part].fragments.append(fragment)
    assert [plain_of(film.fragments) for film in films] == [fragmented] * 3


async def test_a_source_begins_its_parts_and_declares_its_losses() -> None:
    """Breaks: a resized display does not play, or nobody learns that its encoder stood still."""
    stream = Stream()
    writer = Publisher(stream, grant(), clock_us=lambda: 10_000_000)

    async def source() -> AsyncIterator[bytes | NewPart]:
        yield b"one"
        yield NewPart("resized")
        yield b"two"
        yield NewPart("encoder_exit", lost_s=2.5)
        yield b"three"

    await publish(source(), writer, "x264")
    await writer.finish()
    fragments = stream.in_order()
    assert check_chain(fragments) == b"onetwothree"
    parts = [fragment for fragment in fragments if fragment.header.kind is Kind.PART]
    reasons = [PartSettings.parse(PartBody.parse(one.clear).settings).reason for one in parts]
    assert reasons == ["start", "resized", "encoder_exit"]
    gaps = [GapBody.parse(one.clear) for one in fragments if one.header.kind is Kind.GAP]
    assert [(gap.to_us - gap.from_us, gap.reason) for gap in gaps] == [(0, "encoder_exit")]


async def test_fragments_fit_into_the_messages_of_this_server() -> None:
    """Breaks: a server of small messages refuses a recording in its middle."""
    stream = Stream()
    stream.max_payload = fragment_message.LEAST_PAYLOAD
    writer = Publisher(stream, grant())
    await publish(blocks(b"x" * 100_000), writer, "opaque")
    await writer.finish()
    most = max(len(fragment.whole) for fragment in stream.fragments)
    assert stream.max_payload - 1100 <= most <= stream.max_payload - 1000
    stream.max_payload -= 1
    with pytest.raises(Misuse, match=r"nats\.max_payload"):
        Publisher(stream, grant())


async def test_trouble_is_told_while_it_lasts() -> None:
    """Breaks: a recorder without a server looks like one that works."""
    told: list[Progress] = []
    writer = Publisher(Stream(flaky=True), grant(), told.append)
    await publish(blocks(*[b"x"] * 10), writer, "opaque")
    done = await writer.finish()
    assert any(progress.trouble == "no" for progress in told)
    assert done.trouble == ""
