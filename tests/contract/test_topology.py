"""What streams.event_store.topology promises, against a real server."""

import asyncio
import json
from typing import Any

import pytest

from infra.jetstream import ConsumerSpec, Jet
from infra.nats_server.server import NatsServer
from schemas import subjects
from schemas.errors import NoSpace
from streams.event_store import topology
from streams.event_store.recordings import Recordings
from tests.support.machine.waiting import PATIENCE_S


async def test_declaring_twice_changes_nothing(server: NatsServer, jet: Jet) -> None:
    """Breaks: each start of a worker touches the streams, or fails on what the last one made."""
    made = await topology.declare(jet, server.max_file, shards=2)
    assert made == {spec.name: ["created"] for spec in topology.streams(1, shards=2)}
    assert await topology.declare(jet, server.max_file) == {}
    assert await topology.declare(jet) == {}
    grown = await topology.declare(jet, server.max_file - (1 << 20))
    assert set(grown) == set(made)


DRIFT = [
    {"max_msgs_per_subject": 1},
    {"max_msgs": 10},
    {"max_consumers": 100},
    {"no_ack": True},
    {"allow_rollup_hdrs": True},
    {"compression": "s2"},
    {"republish": {"src": ">", "dest": "elsewhere.>"}},
]


@pytest.mark.parametrize("changed", DRIFT, ids=lambda changed: next(iter(changed)))
async def test_what_somebody_changed_in_a_stream_is_changed_back(
    server: NatsServer, jet: Jet, changed: dict[str, Any]
) -> None:
    """Breaks: the event log drops events, or acknowledges what it does not hold, and nobody is told."""
    await topology.declare(jet, server.max_file)
    before = await config(jet, f"STREAM.INFO.{subjects.LIFECYCLE}")
    body = json.dumps(before | changed).encode()
    answer = json.loads(await jet.request(f"$JS.API.STREAM.UPDATE.{subjects.LIFECYCLE}", body))
    assert "error" not in answer
    told = await topology.declare(jet, server.max_file)
    assert [line.split(":")[0] for line in told[subjects.LIFECYCLE]] == list(changed)
    assert await config(jet, f"STREAM.INFO.{subjects.LIFECYCLE}") == before
    assert await topology.declare(jet, server.max_file) == {}


@pytest.mark.parametrize(
    "changed",
    [{"headers_only": True}, {"backoff": [1_000_000_000]}, {"max_batch": 1}, {"inactive_threshold": 10**12}],
    ids=lambda changed: next(iter(changed)),
)
async def test_what_somebody_changed_in_a_consumer_is_changed_back(
    server: NatsServer, jet: Jet, changed: dict[str, Any]
) -> None:
    """Breaks: a stage is handed events without their bodies, for ever."""
    await topology.declare(jet, server.max_file)
    spec = ConsumerSpec("chunk", (subjects.chunk_filter(subjects.RECORDED),))
    await jet.upsert_consumer(subjects.CHUNKS, spec)
    before = await config(jet, f"CONSUMER.INFO.{subjects.CHUNKS}.chunk")
    request = {"stream_name": subjects.CHUNKS, "config": before | changed, "action": "update"}
    answer = json.loads(
        await jet.request(f"$JS.API.CONSUMER.CREATE.{subjects.CHUNKS}.chunk", json.dumps(request).encode())
    )
    assert "error" not in answer
    assert await jet.upsert_consumer(subjects.CHUNKS, spec)
    assert await config(jet, f"CONSUMER.INFO.{subjects.CHUNKS}.chunk") == before
    assert await jet.upsert_consumer(subjects.CHUNKS, spec) == []


async def config(jet: Jet, what: str) -> dict[str, Any]:
    said: dict[str, Any] = json.loads(await jet.request(f"$JS.API.{what}", b""))["config"]
    return said


async def test_every_subject_has_its_stream_and_only_that(server: NatsServer, jet: Jet) -> None:
    """Breaks: an event goes nowhere, or into two streams."""
    await topology.declare(jet, server.max_file)
    for subject, stream in (
        (subjects.recording("h", "s"), (await Recordings.open(jet)).stream_of("s")),
        (subjects.chunk(subjects.RECORDED, "s"), subjects.CHUNKS),
        (subjects.chunk(subjects.REDRIVEN, "s"), subjects.CHUNKS),
        (subjects.lifecycle("s"), subjects.LIFECYCLE),
        (subjects.host_log("h"), subjects.LIFECYCLE),
        (subjects.dead("chunk", "s"), subjects.DEAD),
        (subjects.AUDIT_CHAIN, subjects.AUDIT),
        (subjects.AUDIT_HEADS, subjects.AUDIT),
        (subjects.grants("s", "k"), subjects.AUDIT),
        (subjects.keyed_request("c", "k"), subjects.REQUESTS),
    ):
        ack = await jet.publish(subject, b"x")
        message = await jet.get(stream, ack.seq)
        assert message is not None
        assert message.subject == subject


async def test_together_they_stay_below_what_the_server_promises() -> None:
    """Breaks: the streams fill the disk to the last byte, and no session can end any more."""
    promised = 10 << 30
    assert sum(spec.max_bytes for spec in topology.streams(promised)) <= promised * 0.98


async def test_nothing_that_is_evidence_expires_and_nothing_forbids_erasing(
    server: NatsServer, jet: Jet
) -> None:
    """Breaks: a recording or a key vanishes by itself, or a key cannot be destroyed."""
    await topology.declare(jet, server.max_file)
    for spec in topology.streams(1, shards=(await Recordings.open(jet)).shards):
        answer = json.loads(await jet.request(f"$JS.API.STREAM.INFO.{spec.name}", b""))
        config = answer["config"]
        assert (config["storage"], config["retention"], config["allow_direct"]) == ("file", "limits", True)
        assert (config["deny_delete"], config["deny_purge"]) == (False, False)
        assert config["max_msgs_per_subject"] == -1
        assert config["allow_rollup_hdrs"] is False
        assert not config.get("allow_msg_schedules")
        if spec.name in (subjects.DEAD, subjects.REQUESTS):
            assert config["discard"] == "old"
        elif spec.name == subjects.OPEN:  # made anew at will
            assert (config["discard"], config["max_age"]) == ("old", 0)
        else:
            assert (config["discard"], config["max_age"]) == ("new", 0)


async def test_one_host_cannot_swallow_anothers_message(server: NatsServer, jet: Jet) -> None:
    """Breaks: a host that guesses message ids makes another's fragments vanish as duplicates."""
    await topology.declare(jet, server.max_file)
    subject = subjects.recording("h", "s")
    await jet.publish(subject, b"forged", msg_id="guess")
    async with asyncio.timeout(PATIENCE_S / 2):  # a stream of no such settings knows an id for 2 minutes
        while (await jet.publish(subject, b"real", msg_id="guess")).duplicate:  # noqa: ASYNC110
            await asyncio.sleep(0.1)


async def test_a_full_dead_stream_lets_the_oldest_go_and_a_full_log_refuses(
    server: NatsServer, jet: Jet
) -> None:
    """Breaks: a refusal cannot be written down, or an event of a session makes room for a newer one."""
    await topology.declare(jet, 8 << 20)
    for _ in range(60):
        await jet.publish(subjects.dead("chunk", "s"), bytes(10_000))
    info = await jet.info(subjects.DEAD)
    assert info.first_seq > 1
    for _ in range(40):
        await jet.publish(subjects.lifecycle("s"), bytes(10_000))
    with pytest.raises(NoSpace):
        await jet.publish(subjects.lifecycle("s"), bytes(100_000))
    assert (await jet.info(subjects.LIFECYCLE)).first_seq == 1
