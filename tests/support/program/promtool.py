"""Evaluates the alert rules with promtool, over pages that a real system has shown."""

import json
import math
import re
import subprocess
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from prometheus_client.core import Sample
from prometheus_client.parser import text_string_to_metric_families

from tests.support.servers.built import built

OBSERVABILITY = Path(__file__).parents[3] / "docs" / "observability"
RULES = OBSERVABILITY / "alerts.yml"
NAME = re.compile(r"\blucid_[a-z0-9_]+")
STEPS = 40
"""A page is shown so often, every 15 s: ten minutes."""
Page = dict[str, float]
Sums = Counter[str]
"""By name of the samples; a missing one is 0."""


def read_page(text: str, names: Collection[str] = ()) -> Page:
    """The samples of a page by series, as PromQL writes it. names: of the samples, or those of the rules."""
    named = set(names) or set(NAME.findall(RULES.read_text()))
    return {
        f"{sample.name}{{{', '.join(f'{key}={json.dumps(value)}' for key, value in sample.labels.items())}}}":
        sample.value
        for sample in samples(text)
        if sample.name in named
    }  # fmt: skip


def samples(page: str) -> Iterator[Sample]:
    return (sample for family in text_string_to_metric_families(page) for sample in family.samples)


def summed(page: str) -> Sums:
    """The values of all samples of a name; those of streams also by stream, as `name:STREAM`."""
    found: Sums = Counter()
    for sample in samples(page):
        found[sample.name] += sample.value
        if "stream" in sample.labels:
            found[f"{sample.name}:{sample.labels['stream']}"] += sample.value
    return found


def check_rules(file: Path) -> None:
    """Run a test file of promtool."""
    ran = subprocess.run([built("promtool"), "test", "rules", str(file)], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def check_firing(folder: Path, before: Page, after: Sequence[Page], alerts: Collection[str]) -> None:
    """Check that these alerts are silent over the first page, and fire at some time over the later ones.

    The later pages share twenty minutes, longer than any rule waits.
    """
    expected = [
        {
            "expr": f'max_over_time(count(ALERTS{{alertname="{alert}", alertstate="firing"}})[{span}:15s])'
            " > bool 0 or vector(0)",
            "eval_time": at,
            "exp_samples": [{"labels": "{}", "value": value}],
        }
        for alert in alerts
        for span, at, value in (("9m", "9m", 0), ("20m", "29m", 1))
    ]
    pages = [(page, 2 * STEPS // len(after)) for page in after]
    _check(folder, ((before, STEPS), *pages), expected)


def check_shown(folder: Path, before: Page, after: Page, expressions: Sequence[str]) -> None:
    """Check that each expression has a number, shortly after the second page has followed the first one."""
    expected = [
        {
            "expr": f"count(({one.replace('$__rate_interval', '5m')}) >= -Inf) > bool 0 or vector(0)",
            "eval_time": "12m",
            "exp_samples": [{"labels": "{}", "value": 1}],
        }
        for one in expressions
    ]
    _check(folder, ((before, STEPS), (after, STEPS)), expected)


def _check(folder: Path, pages: Sequence[tuple[Page, int]], expected: Sequence[Mapping[str, Any]]) -> None:
    """Check what promtool finds over these pages, each shown for so many steps."""
    series = [
        {"series": name, "values": " ".join(_repeated(page.get(name), steps) for page, steps in pages)}
        for name in sorted({name for page, _ in pages for name in page})
    ]
    one = {"interval": "15s", "input_series": series, "promql_expr_test": expected}
    file = folder / "pages.test.json"
    file.write_text(json.dumps({"rule_files": [str(RULES)], "evaluation_interval": "15s", "tests": [one]}))
    check_rules(file)


def _repeated(value: float | None, steps: int) -> str:
    if value is None:
        return f"_x{steps}"
    return f"{1e12 if math.isinf(value) else value:.12g}x{steps - 1}"
