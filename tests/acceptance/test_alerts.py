"""The alert rules: each fires by itself. The dashboard: each panel has numbers."""

import asyncio
import json
import re
from collections.abc import Callable
from pathlib import Path

import httpx
import yaml

from tests.support.program.hostile_host import hostile_host
from tests.support.program.installation import VERB_S, Installation, running, until
from tests.support.program.promtool import (
    NAME,
    OBSERVABILITY,
    RULES,
    Sums,
    check_rules,
    check_shown,
    read_page,
    samples,
    summed,
)

PROCESSES = 4
"""conductor, http, up, worker"""
ENDING = re.compile(r"_(total|bucket|count|sum)$")


def alerts() -> set[str]:
    (group,) = yaml.safe_load(RULES.read_text())["groups"]
    return {rule["alert"] for rule in group["rules"]}


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


async def page_of(system: Installation, met: Callable[[Sums], bool], about: str) -> str:
    """The page, once the sums of its samples by name are as wanted. A missing name sums up to 0."""
    url, seen = json.loads((system.data / "run.json").read_bytes())["api_url"], list[str]()

    def is_met() -> bool:
        assert httpx.get(f"{url}/nowhere", timeout=VERB_S).status_code == 401
        seen.append(httpx.get(f"{url}/metrics", timeout=VERB_S).text)
        return met(summed(seen[-1]))

    await asyncio.to_thread(until, is_met, about)
    return seen[-1]


def test_every_panel_and_rule_has_numbers_in_a_busy_system(tmp_path: Path) -> None:
    """Breaks: a panel stays empty for ever, and an alert never fires, because of a renamed measurement."""
    source = tmp_path / "source"
    source.write_bytes(bytes(range(256)) * 4000)
    with running(tmp_path / "data", CHUNK_SIZE_MB="0.25", SCRUB_MB_PER_S="100") as system:
        before, busy = asyncio.run(pages_of_busy_system(system, source))
    dashboard = json.loads((OBSERVABILITY / "dashboard.json").read_text())
    expressions = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())]
    assert len(expressions) > 50
    named = {name for text in (*expressions, RULES.read_text()) for name in NAME.findall(text)}
    shown = {sample.name for sample in samples(busy)}
    assert named - shown == set()
    shown_families, drawn = ({ENDING.sub("", name) for name in names} for names in (shown, named))
    assert {name for name in shown_families - drawn if name.startswith("lucid_")} <= {
        *("lucid_service_info", "lucid_worker_partitions"),
        *("lucid_processor_workers", "lucid_processor_queue_limit"),
        *("lucid_processor_body_bytes", "lucid_processor_body_limit_bytes"),
    }, "a measurement that nobody sees"
    check_shown(tmp_path, read_page(before, shown), read_page(busy, shown), expressions)


async def pages_of_busy_system(system: Installation, source: Path) -> tuple[str, str]:
    """A page of the idle system, and one while a session is sealed, one is scrubbed and one records."""
    before = await page_of(
        system,
        lambda sums: sums["lucid_process_up"] == PROCESSES and sums["lucid_http_requests_total"] > 0,
        "all processes",
    )
    await asyncio.to_thread(system.record, source, "measured")
    assert (await asyncio.to_thread(system, "scrub", "--now")).status == 0
    async with hostile_host(system.nats_url, system.data / "hosts", "a-host", "recording"):
        busy = await page_of(
            system,
            lambda sums: (
                sums["lucid_sealed"] > 0
                and sums["lucid_scrub_pass_messages"] > 0
                and "lucid_host_heard_age_seconds" in sums
            ),
            "a sealed session, a pass of the scrub, and a host that records",
        )
    return before, busy
