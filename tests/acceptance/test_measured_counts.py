"""Each measurement of a real system, against a count of the same thing by other means."""

import asyncio
import json
import os
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from nats.aio.client import Client

from schemas import subjects
from tests.support.machine.waiting import PATIENCE_S
from tests.support.program.hostile_host import HostileHost, hostile_host
from tests.support.program.installation import VERB_S, Installation, running
from tests.support.program.promtool import samples

STEPS = {
    "record": "recorded",
    "chunk": "chunked",
    "compress": "compressed",
    "encrypt": "encrypted",
    "merkle": "proven",
    "store": "stored",
}
"""The subject on which each stage publishes."""
STRANGE = 3
"""Fragments that are none."""
FOUND, ABSENT, NOWHERE, REFUSED = 5, 4, 3, 2
"""Requests of each kind."""
Found = Mapping[tuple[str, ...], float]


class Site:
    """A system, its page, and the other ways to count."""

    def __init__(self, system: Installation) -> None:
        self.system, self.data = system, system.data
        self.url = json.loads((system.data / "run.json").read_bytes())["api_url"]
        token = {"Authorization": f"Bearer {system.credential()}"}
        self.client = httpx.AsyncClient(base_url=self.url, headers=token, timeout=VERB_S)

    async def page(self) -> Found:
        """Every sample by its name and the values of its labels but `process`, summed over processes."""
        found: Counter[tuple[str, ...]] = Counter()
        for one in samples((await self.client.get("/metrics")).text):
            labels = [value for key, value in sorted(one.labels.items()) if key != "process"]
            found[one.name, *labels] += one.value
        return found

    async def until(self, wanted: Callable[[Found], object]) -> Found:
        """The page, once this check passes."""
        end_s = asyncio.get_running_loop().time() + PATIENCE_S
        while True:
            found = await self.page()
            try:
                assert wanted(found) is not False
            except AssertionError:
                if asyncio.get_running_loop().time() > end_s:
                    raise
                await asyncio.sleep(0.5)
            else:
                return found

    async def ask(self, method: str, path: str, **more: Any) -> httpx.Response:
        return await self.client.request(method, f"/api/v1/sessions{path}", **more)


class Streams:
    """The streams as nats-py alone reads them."""

    def __init__(self, client: Client) -> None:
        self.js = client.jetstream()

    async def bodies(self, stream: str, subject: str) -> list[bytes]:
        found = []
        state = (await self.js.stream_info(stream, subjects_filter=subject)).state
        count = sum((state.subjects or {}).values())
        seq = 0
        while len(found) < count:
            message = await self.js.get_msg(stream, seq=seq + 1, subject=subject, next=True)
            assert message.seq is not None
            seq = message.seq
            found.append(message.data or b"")
        return found

    async def chunks(self, step: str) -> dict[tuple[str, int], Any]:
        """The events of one step by uid and index."""
        events = map(json.loads, await self.bodies("CHUNKS", f"lucid.chunk.{step}.*.*"))
        return {(one["uid"], one["index"]): one for one in events if "index" in one}


async def recording(host: HostileHost) -> int:
    """Send a recording with two holes and a declared gap; return how many fragments came."""
    await host.data(9)
    for _ in range(2):
        host.sealer.tick(host.now_us())  # never sent
    await host.data(4)
    host.sealer.tick(host.now_us())  # never sent
    await host.send(host.sealer.gap(1, 2, 3, "overload", host.now_us()))
    for _ in range(STRANGE):
        await host.send(b"no fragment")
    await host.data(2)
    host.sealer.tick(host.now_us())  # never sent
    await host.finish()
    return 1 + 9 + 4 + 1 + 2 + 1


def test_measurements_agree_with_counts_by_other_means(tmp_path: Path) -> None:
    """Breaks: people act on numbers that are not true."""
    source = tmp_path / "source"
    source.write_bytes(os.urandom(900_000))
    with running(tmp_path / "data", CHUNK_SIZE_MB="0.25") as system:
        asyncio.run(agree(system, source))


async def agree(system: Installation, source: Path) -> None:
    site, client = Site(system), Client()
    await client.connect(system.nats_url)
    streams, hosts = Streams(client), system.data / "hosts"
    try:
        before = await site.page()
        await asyncio.to_thread(system.record, source, "whole", CHUNK_SIZE_MB="0.25")
        whole_fragments = len(await streams.bodies("RECORDINGS", subjects.recording_by_anyone("whole")))
        async with hostile_host(system.nats_url, hosts, "losing-host", "losing") as losing:
            came = await recording(losing)
        await asyncio.to_thread(system.until_sealed, "losing")
        assert (await site.ask("POST", "", json={"name": "opened"})).status_code == 201
        async with hostile_host(system.nats_url, hosts, "live-host", "live") as live:
            await live.data(1)
            await check_stages(site, streams, whole_fragments + came)
            await check_sessions(site)
            await check_streams_and_disks(site, streams)
        await check_requests(site, before)
        await check_processes(site)
    finally:
        await site.client.aclose()
        await client.close()


async def check_stages(site: Site, streams: Streams, fragments: int) -> None:
    """Chunks, bytes and times of each stage, fragments, gaps, refusals, lags."""
    events = {stage: await streams.chunks(step) for stage, step in STEPS.items()}
    stored = events["store"]
    assert len(stored) > 4
    files = {
        (path.parent.name, int(path.name)): path.stat().st_size for path in (site.data / "chunks").glob("*/*")
    }
    assert set(files) >= set(stored)
    sizes = {
        "record": sum(one["plain"] for one in events["record"].values()),
        "chunk": sum(one["plain"] for one in events["chunk"].values()),
        "store": sum(files[key] for key in stored),
        "merkle": 0,
    }
    dead = await streams.bodies("DEAD", "lucid.dead.>")

    def agrees(found: Found) -> None:
        for stage in STEPS:
            assert found["lucid_stage_chunks_total", stage] == len(events[stage]) == len(stored)
            assert found["lucid_stage_bytes_total", stage] == sizes.get(
                stage, found["lucid_stage_bytes_total", stage]
            )
            assert found["lucid_stage_dead_letters_total", stage] == len(dead) * (stage == "record")
            if stage != "record":
                assert found["lucid_stage_seconds_count", stage] >= len(stored)
                assert found["lucid_stage_wait_seconds_count", stage] >= len(stored)
                assert found["lucid_stage_lag", stage] == found["lucid_stage_in_flight", stage] == 0
                assert found["lucid_stage_retries_total", stage, "outage"] == 0
        assert found["lucid_chunk_seconds_count",] == len(stored)
        assert found["lucid_fragments_total",] == fragments
        assert found["lucid_fragments_refused_total",] == len(dead) == STRANGE
        assert found["lucid_dead_letters_total",] == len(dead)
        assert found["lucid_fragments_lost_total",] == 4
        assert (found["lucid_gaps_total", "platform"], found["lucid_gaps_total", "host"]) == (2, 1)
        assert found["lucid_credit_used_bytes", "fast"] == found["lucid_credit_waiting", "fast"] == 0
        assert found["lucid_recomputations_total",] == 0

    await site.until(agrees)


async def check_sessions(site: Site) -> None:
    names = ("whole", "losing", "live")
    shown = {name: await asyncio.to_thread(site.system.show, name) for name in names}
    states = {name: one["state"] for name, one in shown.items()}
    assert states == {"whole": "STOPPED", "losing": "STOPPED", "live": "ACTIVE"}
    seals = [shown[name]["seal"] for name in names[:2]]
    files = [
        path.stat().st_size
        for name in names[:2]
        for path in (site.data / "chunks" / shown[name]["uid"]).iterdir()
    ]
    assert len(files) == sum(seal["chunks"] for seal in seals)

    def agrees(found: Found) -> None:
        assert {key[1]: value for key, value in found.items() if key[0] == "lucid_sessions" and value} == {
            "STOPPED": 2,
            "ACTIVE": 1,
            "CREATED": 1,
        }
        assert found["lucid_sessions_open",] == 2
        assert found["lucid_pipelines", "running"] == 1
        assert found["lucid_pipelines", "paused"] == 0
        assert found["lucid_hosts_recording",] == 1
        assert found["lucid_hosts_silent",] == 0
        assert [key[1] for key in found if key[0] == "lucid_host_heard_age_seconds"] == ["live-host"]
        assert found["lucid_sealed", "chunks"] == len(files)
        assert found["lucid_sealed", "sealed_bytes"] == sum(files)
        assert found["lucid_sealed", "plain_bytes"] == sum(seal["plain"] for seal in seals)

    await site.until(agrees)


async def check_streams_and_disks(site: Site, streams: Streams) -> None:
    disk = psutil.disk_usage(str(site.data))

    async def told() -> dict[str, tuple[int, int, int, int]]:
        infos = [
            await streams.js.stream_info(one.config.name or "") for one in await streams.js.streams_info()
        ]
        return {
            str(one.config.name): (
                one.state.bytes,
                one.state.messages,
                one.state.last_seq,
                one.config.max_bytes or 0,
            )
            for one in infos
        }

    names = ("bytes", "messages", "last_sequence", "limit_bytes")
    end_s = asyncio.get_running_loop().time() + PATIENCE_S
    while True:  # the streams move on: two equal looks around a page
        first = await told()
        found = await site.page()
        shown = {
            stream: tuple(int(found[f"lucid_stream_{name}", stream]) for name in names) for stream in first
        }
        if first == shown:
            break
        assert asyncio.get_running_loop().time() < end_s, (first, shown)
        await asyncio.sleep(0.3)
    assert set(first) >= {"RECORDINGS", "CHUNKS", "LIFECYCLE", "DEAD", "OPEN", "AUDIT", "REQUESTS"}
    assert found["lucid_disk_size_bytes", "data"] == disk.total
    assert 0 < found["lucid_disk_free_bytes", "data"] < disk.total
    assert found["lucid_record_read_sequence", "RECORDINGS"] == first["RECORDINGS"][2]


async def check_requests(site: Site, before: Found) -> None:
    for _ in range(FOUND):
        assert (await site.ask("GET", "/whole/statistics")).status_code == 200
    for _ in range(ABSENT):
        assert (await site.ask("GET", "/none-of-ours/statistics")).status_code == 404
    for _ in range(NOWHERE):
        assert (await site.client.get("/nowhere/at/all")).status_code in (401, 404)
    for _ in range(REFUSED):
        assert (await site.ask("POST", "/none-of-ours/stop")).status_code == 404
    route, stop = "/api/v1/sessions/{session_id}/statistics", "/api/v1/sessions/{session_id}/stop"

    def agrees(found: Found) -> None:
        assert found["lucid_http_requests_total", "GET", route, "2xx"] == FOUND
        assert found["lucid_http_requests_total", "GET", route, "4xx"] == ABSENT
        assert found["lucid_http_requests_total", "GET", "unknown", "4xx"] == NOWHERE
        assert found["lucid_http_requests_total", "POST", stop, "4xx"] == REFUSED
        assert found["lucid_http_request_seconds_count", "GET", route] == FOUND + ABSENT
        assert found["lucid_commands_total", "stop", "refused"] == REFUSED
        assert found["lucid_command_seconds_count", "stop"] >= REFUSED
        absent = "lucid_errors_total", "session.absent"  # a refused command is told by two processes
        assert found[absent] - before[absent] == ABSENT + 2 * REFUSED

    await site.until(agrees)


async def check_processes(site: Site) -> None:
    assert site.system.process is not None
    tree = [psutil.Process(site.system.process.pid)]
    tree += [one for one in tree[0].children() if "serve" in one.cmdline()]
    found = await site.page()
    up = [key[0] for key in found if key[0] == "lucid_process_up"]
    assert found["lucid_process_up",] == len(tree) == 4 == len(up) + 3
    assert found["lucid_workers",] == 1
    resident = sum(one.memory_info().rss for one in tree)
    assert found["process_resident_memory_bytes",] == pytest.approx(resident, rel=0.3)
    starts = {key[1]: value for key, value in found.items() if key[0] == "lucid_child_starts_total"}
    assert starts == {"conductor": 1, "worker": 1, "http": 1}
