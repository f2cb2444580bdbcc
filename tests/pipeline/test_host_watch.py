"""When a host was last heard, and how far that was looked at: the real stage `record`, on a real server."""

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import pytest

from handlers.lifecycle.session import Session
from infra.jetstream import Jet
from schemas import subjects
from schemas.errors import Unavailable
from schemas.ports.messages import Message, StreamInfo
from streams.conductor import host_watch as listening
from streams.conductor.host_watch import HostActivity
from streams.event_store.recordings import Recordings
from streams.event_store.session_log import SessionLog
from streams.pipeline.record.ingest import Ingest
from streams.pipeline.record.recording import Recording
from tests.support.machine.waiting import until
from tests.support.pipeline.prepared import Prepared
from tests.support.pipeline.record_stage import Stage, begin, known, record_stage, send

STEPS = [("data", 100), ("tick", 0), ("data", 200), ("tick", 0)]


def now_us() -> int:
    return time.time_ns() // 1000


class Ear:
    """A conductor's side: listens, and says what it knows of one silent session."""

    def __init__(self, recordings: Recordings, session: Session) -> None:
        self.hearing, self.session = HostActivity(recordings, 1), session
        self.began_us = 0

    async def listen(self) -> int:
        """When the host was heard; 0: never."""
        self.began_us = now_us()
        await self.hearing.listen(self.began_us, [self.session])
        return self.hearing.heard_us(replace(self.session, state="ERROR"))

    @property
    def all_looked_at(self) -> bool:
        """Whether all was looked at that lay there when it listened last."""
        return self.hearing.looked_us(self.session) == self.began_us


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every host is looked after at every look."""
    monkeypatch.setattr(listening, "QUIET_S", -1e9)


async def prepare(jet: Jet) -> tuple[Prepared, Ear]:
    prepared = Prepared("demo-01", 1, STEPS)
    await begin(jet, prepared)
    return prepared, Ear(await Recordings.open(jet), await SessionLog(jet).load(prepared.session))


async def folded_up_to(stage: Stage, prepared: Prepared, seq: int) -> None:
    await until(lambda: stage.ingest._recordings[prepared.session]._position >= seq)


async def test_a_worker_that_hangs_keeps_no_other_from_being_asked(
    jet: Jet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks: one worker that hangs is asked for so long that every silent host counts as heard again."""
    prepared, ear = await prepare(jet)
    asked: set[int] = set()

    async def hangs(_: HostActivity, p: int) -> dict[str, tuple[int, int]]:
        asked.add(p)
        await until(lambda: len(asked) == 2)
        return {}

    monkeypatch.setattr(HostActivity, "_ask", hangs)
    own = subjects.partition(prepared.session)
    elsewhere = next(name for name in map(str, range(100)) if subjects.partition(name) != own)
    await ear.hearing.listen(now_us(), [ear.session, replace(ear.session, id=elsewhere)])


async def test_a_host_is_heard_by_what_its_own_key_signed_and_by_nothing_else(jet: Jet) -> None:
    """Breaks: garbage under its name keeps a dead host alive for ever, or an idle one is called silent."""
    prepared, ear = await prepare(jet)
    async with record_stage(jet) as stage:
        await known(stage, prepared)
        assert await ear.listen() == 0
        assert ear.all_looked_at
        await folded_up_to(stage, prepared, await send(jet, prepared, range(2)))
        first = await ear.listen()
        assert 0 < first <= now_us()

        forged = bytearray(prepared.fragments[2])
        forged[-1] ^= 1
        for sent in (b"garbage", bytes(forged), prepared.fragments[1], prepared.fragments[0]):
            ack = await jet.publish(prepared.subject, sent)
        await folded_up_to(stage, prepared, ack.seq)
        assert await ear.listen() == first
        assert ear.all_looked_at, "garbage delays nothing"

        await folded_up_to(stage, prepared, await send(jet, prepared, [2]))
        assert await ear.listen() > first, "a tick, which closes no chunk"


async def test_a_restart_makes_no_host_heard_and_none_silent(jet: Jet) -> None:
    """Breaks: a dead host counts as heard with every restart, or all are silent while workers are down."""
    prepared, ear = await prepare(jet)
    assert (await ear.listen(), ear.all_looked_at) == (0, False), "no worker, nothing known"
    async with record_stage(jet) as stage:
        await known(stage, prepared)
        await folded_up_to(stage, prepared, await send(jet, prepared, range(2)))
        await ear.listen()  # up to when nobody answered
        heard = await ear.listen()
        assert ear.all_looked_at
    await send(jet, prepared, [2])
    assert (await ear.listen(), ear.all_looked_at) == (heard, False), "what came since lies unfolded"
    async with record_stage(jet) as stage:
        await known(stage, prepared)
        later = await ear.listen()
        assert later > heard
        assert await ear.listen() == later
        assert ear.all_looked_at
    restarted_us = now_us()
    async with record_stage(jet) as stage:
        await known(stage, prepared)
        assert await ear.listen() == later
        another = Ear(await Recordings.open(jet), ear.session)
        assert 0 < await another.listen() < restarted_us, "a conductor that has just begun"


async def test_while_a_worker_is_behind_no_host_is_silent(jet: Jet, monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks: a busy machine calls hosts silent whose fragments it holds and has not looked at."""
    prepared, ear = await prepare(jet)
    may_look, look = asyncio.Event(), Ingest._look

    async def slow(ingest: Ingest, stream: str, batch: Sequence[Message], looked: Counter[Recording]) -> None:
        await may_look.wait()
        await look(ingest, stream, batch, looked)

    monkeypatch.setattr(Ingest, "_look", slow)
    async with record_stage(jet) as stage:
        await known(stage, prepared)
        await ear.listen()
        assert ear.all_looked_at
        seq = await send(jet, prepared, range(2))
        assert (await ear.listen(), ear.all_looked_at) == (0, False)
        may_look.set()
        await folded_up_to(stage, prepared, seq)
        assert await ear.listen() > 0
        assert ear.hearing.looked_us(ear.session) > 0


async def test_while_a_stream_stands_still_no_fragment_is_looked_up_again(
    jet: Jet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks: a thousand silent hosts cost a hundred requests a second; or a new fragment is overlooked."""
    prepared, ear = await prepare(jet)
    looked: list[str] = []
    last = Recordings.last

    async def counted(recordings: Recordings, subject: str) -> Message | None:
        looked.append(subject)
        return await last(recordings, subject)

    monkeypatch.setattr(Recordings, "last", counted)
    async with record_stage(jet) as stage:
        await known(stage, prepared)
        for count in (1, 2):
            await folded_up_to(stage, prepared, await send(jet, prepared, [count - 1]))
            for _ in range(3):
                await ear.listen()
                assert ear.all_looked_at
            assert looked == [prepared.subject] * count
    await send(jet, prepared, [2])
    await ear.listen()
    assert not ear.all_looked_at


async def test_after_a_time_in_which_nobody_listened_every_host_counts_as_heard_once(jet: Jet) -> None:
    """Breaks: a server that was away for a minute makes every session an error."""
    _, ear = await prepare(jet)
    heard = []
    for wait_s in (0, 10, 20, 120, 130):
        await ear.hearing.listen(10**15 + wait_s * 1_000_000, [ear.session])
        heard.append((ear.hearing.heard_us(ear.session) - 10**15) // 1_000_000)
    assert heard == [0, 0, 0, 120, 120]


def others_shard(prepared: Prepared, shards: int) -> Prepared:
    """A recording in the first shard, or in another one if the given one is there."""
    own = subjects.partition(prepared.session) % shards
    other = next(n for n in map(str, range(100)) if (subjects.partition(n) % shards == 0) is not (own == 0))
    return Prepared(other, 2, STEPS)


async def test_each_shard_is_heard_by_its_own_clock_and_without_the_others(
    jet: Jet, monkeypatch: pytest.MonkeyPatch, shards: int
) -> None:
    """Breaks: hosts are silent, or never silent, because another shard's server is away or set wrongly."""
    if shards == 1:
        pytest.skip("there is no other shard")
    first, ear = await prepare(jet)
    second = others_shard(first, shards)
    await begin(jet, second)
    beside = await SessionLog(jet).load(second.session)
    away, ahead_us, info = "", 3600 * 10**6, Recordings.info
    struck = ear.hearing._stream_of(beside)
    assert ear.hearing._stream_of(ear.session) != struck
    assert "RECORDINGS" in (struck, ear.hearing._stream_of(ear.session))

    async def asked(recordings: Recordings, stream: str) -> StreamInfo:
        if stream == away:
            raise Unavailable("no leader", code="test.away")
        found = await info(recordings, stream)
        return replace(found, now_us=found.now_us - ahead_us) if stream == struck else found

    monkeypatch.setattr(Recordings, "info", asked)

    async def listen(at_us: int) -> tuple[int, int]:
        await ear.hearing.listen(at_us, [ear.session, beside])
        sessions = (ear.session, beside)
        return tuple(ear.hearing.heard_us(replace(one, state="ERROR")) for one in sessions)  # type: ignore[return-value]

    async with record_stage(jet) as stage:
        for prepared in (first, second):
            await known(stage, prepared)
            await folded_up_to(stage, prepared, await send(jet, prepared, range(2)))
        right, shifted = await listen(now_us())
        assert 0 < right <= now_us() < shifted <= now_us() + ahead_us
        for away in (struck, ear.hearing._stream_of(ear.session)):
            sent = second if away != struck else first
            await folded_up_to(stage, sent, await send(jet, sent, [2]))
            later = await listen(now_us())
            assert [new > old for new, old in zip(later, (right, shifted), strict=True)] == [
                sent is first,
                sent is second,
            ]
            right, shifted = later
        late_us = now_us() + 120 * 10**6
        await listen(late_us)
        assert ear.hearing.heard_us(beside) == max(late_us, shifted), "it was not listened to for long"
        assert ear.hearing.heard_us(ear.session) < late_us, "it is not known whether it sends"
        away = ""
        await listen(late_us + 1)
        assert ear.hearing.heard_us(ear.session) == late_us + 1, "and now it counts as heard, once"
    monkeypatch.setattr(Recordings, "info", unanswered)
    with pytest.raises(Unavailable):
        await ear.listen()


async def unanswered(_: Recordings, stream: str) -> StreamInfo:
    raise Unavailable(f"{stream} has no leader", code="test.away")
