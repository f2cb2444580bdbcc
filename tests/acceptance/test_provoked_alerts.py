"""Each alert rule fires over the pages of a real system in which its danger has come."""

import asyncio
import json
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import psutil
import pytest
import yaml

from infra.jetstream import Jet, connect
from infra.nats_server.server import NatsServer
from infra.telemetry.metrics import Meter
from schemas import subjects
from schemas.events.scrub import ScrubState, write_state
from streams.api.metrics import Metrics
from streams.conductor import measurements
from streams.roles.services import run_conductor
from tests.support.machine.absent import MAY_MOUNT, absent
from tests.support.machine.small_disk import Disk, small_disk
from tests.support.machine.waiting import PATIENCE_S
from tests.support.pipeline.conducted import World, connected
from tests.support.program.hostile_host import BLOCK_BYTES, HostileHost, hostile_host
from tests.support.program.installation import VERB_S, Installation, running, until
from tests.support.program.promtool import RULES, Page, Sums, check_firing, read_page, summed

AT_ONCE = {
    *("LucidPageAbsent", "LucidPageIncomplete", "LucidProcessDown", "LucidNoWorker"),
    *("LucidStageLag", "LucidStageStalled", "LucidRecordLag", "LucidStreamFilling"),
    *("LucidDeadLetters", "LucidGap", "LucidHostSilent", "LucidDiskLow"),
    *("LucidVerificationFailure", "LucidScrubAlarm", "LucidServerErrors", "LucidSessionLeftBehind"),
}
SLOW = ("LucidDiskFilling", "LucidMeasurementsOld")
UNPROVEN = "LucidScrubOld"
THREE_DAYS_US = 3 * 86_400_000_000
DISK_BYTES = 384 << 20
CHUNKS_WAITING, FRAGMENTS_WAITING = 120, 520
"""More than the rules of lag allow."""
ERRORS = 4
"""Requests that fail between two pages."""
PROCESSES = 4
"""conductor, http, up, worker"""
FASTER = 60
"""In the tests of slow dangers a second is a minute."""


class Pages:
    """The pages of a system, and the alerts that were seen to fire over them."""

    def __init__(self, folder: Path, system: Installation) -> None:
        self.folder, self.system = folder, system
        self.url = json.loads((system.data / "run.json").read_bytes())["api_url"]
        self.before: Page = {}
        self.fired: set[str] = set()

    def until(self, met: Callable[[Sums], bool], about: str) -> Page:
        """The samples that rules name, once the sums by name are as wanted. A missing name sums up to 0."""
        seen: list[str] = []

        def is_met() -> bool:
            seen.append(httpx.get(f"{self.url}/metrics", timeout=VERB_S).text)
            return met(summed(seen[-1]))

        until(is_met, about)
        return read_page(seen[-1])

    def ask(self, method: str, path: str, **more: Any) -> httpx.Response:
        token = {"Authorization": f"Bearer {self.system.credential()}"}
        return httpx.request(
            method, f"{self.url}/api/v1/sessions{path}", headers=token, timeout=VERB_S, **more
        )

    def fire(self, *alerts: str, after: Page | list[Page]) -> None:
        """Check that the alerts are silent over the page of the calm system, and fire over these."""
        check_firing(self.folder, self.before, after if isinstance(after, list) else [after], alerts)
        self.fired.update(alerts)


@contextmanager
def small(folder: Path) -> Iterator[Disk]:
    with small_disk(folder, DISK_BYTES, "tmpfs") as disk:
        if disk is None:
            absent("the right to mount a small tmpfs", MAY_MOUNT)
        yield disk


def test_each_danger_in_a_real_system_fires_its_rule(tmp_path: Path) -> None:
    """Breaks: the rules are right about made-up numbers, and silent in the night when a worker hangs."""
    source = tmp_path / "source"
    source.write_bytes(bytes(range(256)) * 4000)
    settings = {
        "CHUNK_SIZE_MB": "0.25",
        "HOST_SILENT_MAX": "20",
        "STAGE_STALLED": "10",
        "SCRUB_MB_PER_S": "100",
    }
    with small(tmp_path) as disk:
        with running(disk.path / "data", **settings) as system:
            pages = Pages(tmp_path, system)
            system.record(source, "whole")
            pages.before = pages.until(
                lambda sums: sums["lucid_sealed"] > 0 and sums["lucid_process_up"] == PROCESSES,
                "a calm system",
            )
            asyncio.run(leave_one_behind(pages, source))
            asyncio.run(endanger_recordings(pages))
            fill_the_disk(pages, disk)
            make_evidence_false(pages)
            asyncio.run(take_the_audit_chain(pages))
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{pages.url}/metrics")
        pages.fire("LucidPageAbsent", after={})
    assert pages.fired == AT_ONCE


async def leave_one_behind(pages: Pages, source: Path) -> None:
    """A file in the way of one session's chunks, while another session is stored."""
    system = pages.system
    async with hostile_host(system.nats_url, system.data / "hosts", "a-host", "behind") as host:
        in_the_way = system.data / "chunks" / (await asyncio.to_thread(system.show, "behind"))["uid"]
        in_the_way.write_text("in the way")
        await host.data(6)
        await asyncio.to_thread(system.record, source, "beside")
        left = await asyncio.to_thread(
            pages.until, lambda sums: sums["lucid_stage_left_behind"] > 0, "a session that is left behind"
        )
        in_the_way.unlink()
        await host.finish()
        await asyncio.to_thread(system.until_sealed, "behind")
    pages.fire("LucidSessionLeftBehind", after=left)


async def endanger_recordings(pages: Pages) -> None:
    """A worker that hangs; then a gap, refused messages and a silent host."""
    hosts, url = pages.system.data / "hosts", pages.system.nats_url
    async with (
        hostile_host(url, hosts, "silent-host", "silent"),  # sends nothing more
        hostile_host(url, hosts, "losing-host", "losing") as losing,
    ):
        await losing.data(3)
        losing.sealer.data(bytes(BLOCK_BYTES), losing.now_us())  # never sent
        worker = worker_of(pages.system)
        worker.send_signal(signal.SIGSTOP)
        try:
            async with losing.jet.serve(subjects.METRICS, lambda: b"no answer of ours"):
                await let_work_wait(losing)
                hung = await asyncio.to_thread(pages.until, hangs, "a worker that hangs is missed")
        finally:
            worker.send_signal(signal.SIGCONT)
        await losing.data(2)
        await losing.finish()
        later = await asyncio.to_thread(
            pages.until,
            lambda sums: (
                sums["lucid_gaps_total"] > 0
                and sums["lucid_dead_letters_total"] > 0
                and sums["lucid_hosts_silent"] > 0
            ),
            "a gap, dead letters and a silent host",
        )
    pages.fire("LucidProcessDown", "LucidNoWorker", "LucidPageIncomplete", after=hung)
    pages.fire("LucidStageLag", "LucidStageStalled", "LucidRecordLag", "LucidStreamFilling", after=hung)
    pages.fire("LucidDeadLetters", "LucidGap", "LucidHostSilent", after=later)


async def let_work_wait(host: HostileHost) -> None:
    """Chunks that fill their stream, and fragments."""
    limit = (await host.jet.info(subjects.CHUNKS)).max_bytes
    for _ in range(CHUNKS_WAITING):
        junk = bytes(limit * 88 // 100 // CHUNKS_WAITING)
        await host.jet.publish(subjects.chunk(subjects.RECORDED, "losing"), junk)
    for _ in range(FRAGMENTS_WAITING):
        await host.send(b"no fragment")


def hangs(sums: Sums) -> bool:
    return (
        sums["lucid_workers"] == 0
        and sums["lucid_stage_lag"] > CHUNKS_WAITING - 1
        and sums["lucid_stage_stalled"] > 0
        and sums["lucid_processes_missing"] > 1
        and sums["lucid_stream_last_sequence:RECORDINGS"] > FRAGMENTS_WAITING
    )


def fill_the_disk(pages: Pages, disk: Disk) -> None:
    disk.fill(leave=DISK_BYTES // 20)
    full = pages.until(
        lambda sums: sums["lucid_disk_free_bytes"] < sums["lucid_disk_size_bytes"] / 10,
        "a disk that is nearly full",
    )
    disk.empty()
    pages.fire("LucidDiskLow", after=full)


def make_evidence_false(pages: Pages) -> None:
    """A changed bit that somebody downloads, and that the scrub finds; its source is gone."""
    asyncio.run(purge_source(pages.system))
    flip_a_bit(pages.system)
    answer = pages.ask("GET", "/whole/chunks/0000000000/download")
    assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json")
    false = pages.until(lambda sums: sums["lucid_verification_failures_total"] > 0, "false evidence")
    pages.fire("LucidVerificationFailure", after=false)
    assert pages.system("scrub", "whole").status == 3
    alarmed = pages.until(lambda sums: sums["lucid_scrub_alarms"] > 0, "an alarm of the scrub")
    pages.fire("LucidScrubAlarm", after=alarmed)


async def purge_source(system: Installation) -> None:
    async with connection(system) as jet:
        await jet.purge(subjects.RECORDINGS, subjects.recording_by_anyone("whole"))


async def take_the_audit_chain(pages: Pages) -> None:
    """Without their audit entries no commands are carried out: all of them fail inside."""
    async with connection(pages.system) as jet:
        await delete(jet, subjects.AUDIT)
    failing = []
    for turn in range(8):
        for _ in range(ERRORS):
            answer = await asyncio.to_thread(pages.ask, "POST", "", json={"id": f"{turn}"})
            assert answer.status_code >= 500, answer.text
        failing.append(await asyncio.to_thread(pages.until, bool, "a page"))
    pages.fire("LucidServerErrors", after=failing)


@asynccontextmanager
async def connection(system: Installation) -> AsyncIterator[Jet]:
    jet = await connect(system.nats_url, name="test", timeout_s=PATIENCE_S)
    try:
        yield jet
    finally:
        await jet.close()


def worker_of(system: Installation) -> psutil.Process:
    assert system.process is not None
    children = psutil.Process(system.process.pid).children()
    (found,) = (child for child in children if "worker" in child.cmdline())
    return found


def flip_a_bit(system: Installation) -> None:
    """Change one bit in the middle of the first chunk of the session `whole`."""
    uid = system.show("whole")["uid"]
    (file,) = (system.data / "chunks" / uid).glob("0000000000*")
    file.chmod(0o600)
    with file.open("r+b") as chunk:
        chunk.seek(file.stat().st_size // 2)
        (byte,) = chunk.read(1)
        chunk.seek(-1, 1)
        chunk.write(bytes([byte ^ 1]))


async def test_slow_dangers_of_a_real_conductor_fire_their_rules(
    server: NatsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks: a disk fills for hours, or numbers are hours old, and nobody is told."""
    clock = SimpleNamespace(monotonic=lambda: time.monotonic() * FASTER)
    monkeypatch.setattr(measurements, "time", clock)
    monkeypatch.setattr(measurements, "LOOK_S", 0.1)
    with small(tmp_path) as disk:
        async with connected(server, disk.path) as world, conducting(world) as page:
            before = await page(lambda sums: 0 < sums["lucid_look_age_seconds"] < 30)
            with (disk.path / "growing").open("ab", buffering=0) as file:
                filling = await page(lambda sums: bool(file.write(bytes(1 << 18))) and is_filling(sums))
            await delete(world.jet, subjects.REQUESTS)
            old = await page(lambda sums: sums["lucid_look_age_seconds"] > 90)
            for alert, danger in zip(SLOW, (filling, old), strict=True):
                check_firing(tmp_path, before, [danger], [alert])


def is_filling(sums: Sums) -> bool:
    return 0 < sums["lucid_disk_hours_to_full"] < 20


@asynccontextmanager
async def conducting(world: World) -> AsyncIterator[Callable[[Callable[[Sums], bool]], Awaitable[Page]]]:
    """A conductor; the context is the function that returns its page once the sums are as wanted."""
    here, stop = world.here, asyncio.Event()
    here.process = "conductor"
    metrics = Metrics(world.jet, Meter("http"))

    async def page(met: Callable[[Sums], bool]) -> Page:
        async with asyncio.timeout(PATIENCE_S):
            while True:
                text, _ = await metrics.text("")
                if met(summed(text.decode())):
                    return read_page(text.decode())
                await asyncio.sleep(0.1)

    async with world.jet.serve(subjects.METRICS, here.meter.sample):
        role = asyncio.create_task(run_conductor(here, world.jet, stop))
        try:
            await world.answered()
            yield page
        finally:
            stop.set()
            await role


async def delete(jet: Jet, stream: str) -> None:
    """Delete a stream, as an operator might by mistake."""
    answer = json.loads(await jet.request(f"$JS.API.STREAM.DELETE.{stream}", b""))
    assert answer.get("success"), answer


def test_a_scrub_whose_passes_do_not_end_is_told(tmp_path: Path) -> None:
    """Breaks: nothing is proven for weeks, and nobody is told, because nothing failed."""
    with running(tmp_path / "data", SCRUB_MB_PER_S="100") as system:
        pages = Pages(tmp_path, system)
        pages.before = pages.until(lambda sums: sums["lucid_scrub_age_seconds"] > 0, "a scrub that begins")
        assert system.stop() == 0
        old = ScrubState(first_us=time.time_ns() // 1000 - THREE_DAYS_US)
        (system.data / "scrub/state.json").write_bytes(write_state(old))
        system.start()
        pages.url = Pages(tmp_path, system).url
        old_page = pages.until(lambda sums: sums["lucid_scrub_age_seconds"] > 86_400, "an old pass")
        pages.fire(UNPROVEN, after=old_page)


def test_no_rule_is_without_its_danger() -> None:
    """Breaks: a new rule has never been seen to fire outside of made-up numbers."""
    (group,) = yaml.safe_load(RULES.read_text())["groups"]
    assert {rule["alert"] for rule in group["rules"]} == {*AT_ONCE, *SLOW, UNPROVEN}
