"""Recordings over several streams: how many there are, which one has a session, who may say so."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from infra.jetstream import Jet, connect
from infra.nats_server.server import NatsServer
from schemas import subjects
from schemas.errors import Misuse, NoSpace
from streams.event_store import topology
from streams.event_store.recordings import Recordings
from tests.contract.test_link import nats
from tests.support.machine.waiting import PATIENCE_S

BEFORE: dict[str, Any] = json.loads(
    (Path(__file__).parent.parent / "support/servers/streams_before_shards.json").read_text()
)
"""The configuration of each stream as an installation without shards has it, of 4 GiB."""
each_count = pytest.mark.parametrize("shards", subjects.SHARD_COUNTS)


async def config(jet: Jet, stream: str) -> dict[str, Any]:
    """The stream's configuration, without what the server adds."""
    found: dict[str, Any] = json.loads(await jet.request(f"$JS.API.STREAM.INFO.{stream}", b""))["config"]
    found["metadata"] = {key: text for key, text in found["metadata"].items() if key[0] != "_"}
    return found


async def names(jet: Jet) -> set[str]:
    return set(json.loads(await jet.request("$JS.API.STREAM.NAMES", b"{}"))["streams"] or ())


async def test_an_installation_of_before_keeps_its_streams_to_the_byte(jet: Jet) -> None:
    """Breaks: an update changes the streams of an installation, or refuses to start over them."""
    for stream, before in BEFORE.items():
        await jet.request(f"$JS.API.STREAM.CREATE.{stream}", json.dumps(before).encode())
    since = {subjects.AUDIT: ["created"], subjects.REQUESTS: ["created"]}
    assert await topology.declare(jet, 4 << 30) == since
    assert await topology.declare(jet, 4 << 30) == {}
    assert {stream: await config(jet, stream) for stream in BEFORE} == BEFORE
    assert (await Recordings.open(jet)).streams == (subjects.RECORDINGS,)
    with pytest.raises(Misuse) as refused:
        await topology.declare(jet, 4 << 30, shards=4)
    assert refused.value.code == "shards.fixed"
    assert "has 1 recording stream, and SHARDS is 4" in refused.value.message
    assert await names(jet) == {*BEFORE, subjects.AUDIT, subjects.REQUESTS}


async def test_a_first_shard_that_somebody_removed_frees_no_number(jet: Jet) -> None:
    """Breaks: the next start freezes another number, and then no start succeeds."""
    await topology.declare(jet, 4 << 30, shards=4)
    await jet.request(f"$JS.API.STREAM.DELETE.{subjects.RECORDINGS}", b"")
    with pytest.raises(Misuse, match="has 4 recording streams, and SHARDS is 8"):
        await topology.declare(jet, 4 << 30, shards=8)
    await topology.declare(jet, 4 << 30)
    assert (await Recordings.open(jet)).shards == 4


@each_count
async def test_every_partition_is_in_one_stream_and_the_streams_are_alike(jet: Jet, shards: int) -> None:
    """Breaks: a host's fragments go nowhere, or a reader looks for them in another stream."""
    await topology.declare(jet, 4 << 30, shards=shards)
    recordings = await Recordings.open(jet)
    assert recordings.shards == shards
    assert len(set(recordings.streams)) == shards
    limits, found = {(await recordings.info(stream)).max_bytes for stream in recordings.streams}, set()
    assert limits == {BEFORE["RECORDINGS"]["max_bytes"] // shards}
    sessions = {subjects.partition(name): name for name in map(str, range(200))}
    assert len(sessions) == subjects.PARTITIONS
    for session in sessions.values():
        ack = await jet.publish(subjects.recording("h", session), session.encode())
        there = await recordings.get_many(session, [ack.seq])
        assert there[ack.seq].data == session.encode()
        assert await recordings.is_recorded(session)
        found.add(recordings.stream_of(session))
    assert found == set(recordings.streams)
    held = [p for owned in recordings.held_by(range(subjects.PARTITIONS)).values() for p in owned]
    assert sorted(held) == list(range(subjects.PARTITIONS))


async def test_the_number_is_fixed_at_the_first_start_and_known_to_all(jet: Jet) -> None:
    """Breaks: a second service with another setting splits sessions over streams that nobody reads."""
    await topology.declare(jet, 4 << 30, shards=8)
    made = await names(jet)
    for other in (1, 2, 4, 16):
        with pytest.raises(Misuse) as refused:
            await topology.declare(jet, 4 << 30, shards=other)
        assert refused.value.code == "shards.fixed"
        assert "has 8 recording streams" in refused.value.message
    assert await topology.declare(jet, 4 << 30) == {}
    assert await topology.declare(jet) == {}
    assert (await Recordings.open(jet)).shards == 8
    assert await names(jet) == made


@pytest.mark.parametrize("made", [1, 2, 3])
async def test_a_crash_between_two_streams_is_completed_by_the_next_start(jet: Jet, made: int) -> None:
    """Breaks: an installation that crashed at its first start refuses some hosts for ever."""
    for spec in topology.streams(4 << 30, shards=4)[:made]:
        await jet.declare(spec)
    for other in (1, 16):
        with pytest.raises(Misuse):
            await topology.declare(jet, 4 << 30, shards=other)
    assert len(await names(jet)) == made
    await topology.declare(jet, 4 << 30)
    assert await names(jet) == {spec.name for spec in topology.streams(1, shards=4)}


async def test_of_two_first_starts_with_two_numbers_one_wins(server: NatsServer) -> None:
    """Breaks: two services that start together make streams of two numbers, and sessions are in none."""
    jets = [await connect(server.url, name=f"test-{n}", timeout_s=PATIENCE_S) for n in range(8)]
    try:
        asked = [2, 4, 8, 16, 16, 8, 4, 2]
        tried = (topology.declare(jet, 4 << 30, shards=n) for jet, n in zip(jets, asked, strict=True))
        results = await asyncio.gather(*tried, return_exceptions=True)
        shards = (await Recordings.open(jets[0])).shards
        assert [isinstance(result, dict) for result in results] == [n == shards for n in asked]
        assert {one.code for one in results if isinstance(one, Misuse)} == {"shards.fixed"}
        assert await names(jets[0]) == {spec.name for spec in topology.streams(1, shards=shards)}
    finally:
        await asyncio.gather(*(jet.close() for jet in jets))


async def test_a_number_that_the_account_has_no_place_for_is_not_frozen(tmp_path: Path) -> None:
    """Breaks: the first start makes some of its streams, and no later one can have fewer."""
    limits = "jetstream { max_file: 64MB, max_streams: 10 }"
    account = f"accounts {{ A {{ users: [{{user: a, password: b}}], {limits} }} }}"
    async with nats(tmp_path, account) as port:
        jet = await connect(f"nats://a:b@127.0.0.1:{port}", name="test", timeout_s=PATIENCE_S)
        with pytest.raises(NoSpace) as refused:
            await topology.declare(jet, 60 << 20, shards=8)
        assert refused.value.code == "account.streams"
        assert await names(jet) == set()
        await topology.declare(jet, 60 << 20, shards=4)
        assert len(await names(jet)) == 10
        await jet.close()


async def test_what_is_changed_in_one_shard_is_changed_back(jet: Jet) -> None:
    """Breaks: one of several streams drops its oldest fragments, and nobody is told."""
    await topology.declare(jet, 4 << 30, shards=4)
    before = await config(jet, "RECORDINGS-3")
    body = json.dumps(before | {"discard": "old"}).encode()
    assert b'"error"' not in await jet.request("$JS.API.STREAM.UPDATE.RECORDINGS-3", body)
    assert list(await topology.declare(jet, 4 << 30)) == ["RECORDINGS-3"]
    assert await config(jet, "RECORDINGS-3") == before


@pytest.mark.parametrize("told", ["3", "0", "32", "many", ""])
async def test_a_number_that_no_version_writes_is_refused(jet: Jet, told: str) -> None:
    """Breaks: a damaged or newer configuration is read as another number of streams."""
    body = BEFORE["RECORDINGS"] | {"metadata": {"lucid.partitions": "16", "lucid.shards": told}}
    await jet.request("$JS.API.STREAM.CREATE.RECORDINGS", json.dumps(body).encode())
    for refused in (Recordings.open(jet), topology.declare(jet, 4 << 30)):
        with pytest.raises(Misuse) as error:
            await refused
        assert error.value.code == "shards.unknown"
