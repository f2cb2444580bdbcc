"""The alert rules: each fires by itself, and over the pages of a real system in which things go wrong."""

import asyncio
import json
import re
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import httpx
import psutil
import yaml
from prometheus_client.parser import text_string_to_metric_families

from schemas import subjects
from tests.support.machine.absent import MAY_MOUNT, absent
from tests.support.machine.small_disk import small_disk
from tests.support.program.hostile_host import BLOCK_BYTES, hostile_host
from tests.support.program.installation import VERB_S, Installation, running, until
from tests.support.program.promtool import (
    NAME,
    OBSERVABILITY,
    RULES,
    Page,
    check_firing,
    check_rules,
    read_page,
)

DISK_BYTES = 384 << 20
CHUNKS_WAITING, FRAGMENTS_WAITING = 120, 520
"""More than the rules of lag allow."""
PROCESSES = 4
"""conductor, http, up, worker"""
ENDING = re.compile(r"_(total|bucket|count|sum)$")


def alerts() -> set[str]:
    (group,) = yaml.safe_load(RULES.read_text())["groups"]
    return {rule["alert"] for rule in group["rules"]}


def page_of(system: Installation) -> str:
    url = json.loads((system.data / "run.json").read_bytes())["api_url"]
    return httpx.get(f"{url}/metrics", timeout=VERB_S).text


def until_page(system: Installation, met: Callable[["Counter[str]"], bool], about: str) -> Page:
    """The samples that rules name, once the sums by name are as wanted. A missing name sums up to 0."""
    seen: list[str] = []

    def is_met() -> bool:
        seen.append(page_of(system))
        sums: Counter[str] = Counter()
        for family in text_string_to_metric_families(seen[-1]):
            for sample in family.samples:
                sums[sample.name] += sample.value
        return met(sums)

    until(is_met, about)
    return read_page(seen[-1])


def test_every_rule_fires_and_is_silent_while_all_is_well() -> None:
    """Breaks: an alert that everybody relies on can never fire, or fires all day."""
    tested = yaml.safe_load((OBSERVABILITY / "alerts.test.yml").read_text())["tests"]
    assert {one["name"] for one in tested} == alerts()
    check_rules(OBSERVABILITY / "alerts.test.yml")


def test_every_rule_says_how_bad_it_is_and_what_to_do() -> None:
    """Breaks: somebody is woken at night by a name."""
    (group,) = yaml.safe_load(RULES.read_text())["groups"]
    for rule in group["rules"]:
        assert rule["labels"]["severity"] in ("warning", "critical"), rule["alert"]
        assert {"summary", "action"} <= rule["annotations"].keys(), rule["alert"]


def test_dashboard_and_rules_name_only_measurements_that_are_there(tmp_path: Path) -> None:
    """Breaks: a panel stays empty for ever, and an alert never fires, because of a renamed measurement."""
    source = tmp_path / "source"
    source.write_bytes(bytes(range(256)) * 4000)
    with running(tmp_path / "data", CHUNK_SIZE_MB="0.25") as system:
        system.record(source, "measured")
        url = json.loads((system.data / "run.json").read_bytes())["api_url"]
        assert httpx.get(f"{url}/nowhere", timeout=VERB_S).status_code == 401
        shown = asyncio.run(names_while_recording(system))
    dashboard = (OBSERVABILITY / "dashboard.json").read_text()
    expressions = [
        target["expr"] for panel in json.loads(dashboard)["panels"] for target in panel.get("targets", ())
    ]
    assert len(expressions) > 50
    named = {name for text in (*expressions, RULES.read_text()) for name in NAME.findall(text)}
    assert named - shown == set()
    shown_families, drawn = ({ENDING.sub("", name) for name in names} for names in (shown, named))
    assert {name for name in shown_families - drawn if name.startswith("lucid_")} <= {
        *("lucid_service_info", "lucid_worker_partitions"),
        *("lucid_processor_workers", "lucid_processor_queue_limit"),
        *("lucid_processor_body_bytes", "lucid_processor_body_limit_bytes"),
    }, "a measurement that nobody sees"


async def names_while_recording(system: Installation) -> set[str]:
    """The name of every sample while one session is sealed, and another one records."""
    async with hostile_host(system.nats_url, system.data / "hosts", "a-host", "recording"):
        await asyncio.to_thread(
            until_page,
            system,
            lambda sums: sums["lucid_sealed"] > 0 and "lucid_host_heard_age_seconds" in sums,
            "a sealed session, and one that records",
        )
        text = await asyncio.to_thread(page_of, system)
    return {sample.name for family in text_string_to_metric_families(text) for sample in family.samples}


def test_each_danger_in_a_real_system_fires_its_rule(tmp_path: Path) -> None:
    """Breaks: the rules are right about made-up numbers, and silent in the night when a worker hangs."""
    source = tmp_path / "source"
    source.write_bytes(bytes(range(256)) * 4000)
    with small_disk(tmp_path, DISK_BYTES, "tmpfs") as disk:
        if disk is None:
            absent("the right to mount a small tmpfs", MAY_MOUNT)
        with running(
            disk.path / "data", CHUNK_SIZE_MB="0.25", HOST_SILENT_MAX="20", STAGE_STALLED="10"
        ) as system:
            system.record(source, "whole")
            before = until_page(
                system,
                lambda sums: sums["lucid_sealed"] > 0 and sums["lucid_process_up"] == PROCESSES,
                "a calm system",
            )
            hung, later = asyncio.run(in_danger(system))
            disk.fill(leave=DISK_BYTES // 20)
            full = until_page(
                system,
                lambda sums: sums["lucid_disk_free_bytes"] < sums["lucid_disk_size_bytes"] / 10,
                "a disk that is nearly full",
            )
            disk.empty()
            flip_a_bit(system)
            verified = httpx.get(
                f"{json.loads((system.data / 'run.json').read_bytes())['api_url']}"
                "/api/v1/sessions/whole/chunks/0000000000/download",
                headers={"Authorization": f"Bearer {system.credential()}"},
                timeout=VERB_S,
            )
            assert (verified.status_code, verified.headers["content-type"]) == (
                422,
                "application/problem+json",
            ), verified.text
            false = until_page(
                system, lambda sums: sums["lucid_verification_failures_total"] > 0, "false evidence"
            )
    worker = ("LucidProcessDown", "LucidNoWorker")
    stages = ("LucidStageLag", "LucidStageStalled", "LucidRecordLag")
    check_firing(tmp_path, before, hung, (*worker, *stages))
    check_firing(tmp_path, before, later, ("LucidDeadLetters", "LucidGap", "LucidHostSilent"))
    check_firing(tmp_path, before, full, ("LucidDiskLow",))
    check_firing(tmp_path, before, false, ("LucidVerificationFailure",))


async def in_danger(system: Installation) -> tuple[Page, Page]:
    """The page while the worker hangs, and the page after a gap, refused messages and a silent host."""
    hosts, url = system.data / "hosts", system.nats_url
    async with (
        hostile_host(url, hosts, "silent-host", "silent"),  # sends nothing more
        hostile_host(url, hosts, "losing-host", "losing") as losing,
    ):
        await losing.data(3)
        losing.sealer.data(bytes(BLOCK_BYTES), losing.now_us())  # never sent
        worker = worker_of(system)
        worker.send_signal(signal.SIGSTOP)
        try:
            for number in range(CHUNKS_WAITING):
                await losing.jet.publish(subjects.chunk(subjects.RECORDED, "losing"), b"%d" % number)
            for _ in range(FRAGMENTS_WAITING):
                await losing.send(b"no fragment")
            hung = await asyncio.to_thread(
                until_page,
                system,
                lambda sums: (
                    sums["lucid_workers"] == 0
                    and sums["lucid_stage_lag"] > CHUNKS_WAITING - 1
                    and sums["lucid_stage_stalled"] > 0
                    and sums["lucid_stream_last_sequence"] > CHUNKS_WAITING + FRAGMENTS_WAITING
                ),
                "a worker that hangs is missed",
            )
        finally:
            worker.send_signal(signal.SIGCONT)
        await losing.data(2)
        await losing.finish()
        later = await asyncio.to_thread(
            until_page,
            system,
            lambda sums: (
                sums["lucid_gaps_total"] > 0
                and sums["lucid_dead_letters_total"] > 0
                and sums["lucid_hosts_silent"] > 0
            ),
            "a gap, dead letters and a silent host",
        )
    return hung, later


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
