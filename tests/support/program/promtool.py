"""Evaluates the alert rules with promtool, over pages that a real system has shown."""

import json
import math
import re
import subprocess
from collections.abc import Collection
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from tests.support.servers.built import built

OBSERVABILITY = Path(__file__).parents[3] / "docs" / "observability"
RULES = OBSERVABILITY / "alerts.yml"
NAME = re.compile(r"\blucid_[a-z0-9_]+")
STEPS = 40
"""Each page is shown so often, every 15 s: ten minutes, longer than any rule waits."""
Page = dict[str, float]


def read_page(text: str) -> Page:
    """The samples of a page that the rules name, by series as PromQL writes it."""
    named = set(NAME.findall(RULES.read_text()))
    return {
        f"{sample.name}{{{', '.join(f'{key}={json.dumps(value)}' for key, value in sample.labels.items())}}}":
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name in named
    }  # fmt: skip


def check_rules(file: Path) -> None:
    """Run a test file of promtool."""
    ran = subprocess.run([built("promtool"), "test", "rules", str(file)], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def check_firing(folder: Path, before: Page, after: Page, alerts: Collection[str]) -> None:
    """Check that these alerts are silent over the first page, and fire over the second one."""
    series = [
        {"series": name, "values": f"{_repeated(before.get(name))} {_repeated(after.get(name))}"}
        for name in sorted({*before, *after})
    ]
    expected = [
        {
            "expr": f'count(ALERTS{{alertname="{alert}", alertstate="firing"}} > 0) > bool 0 or vector(0)',
            "eval_time": at,
            "exp_samples": [{"labels": "{}", "value": value}],
        }
        for alert in alerts
        for at, value in (("9m", 0), ("19m", 1))
    ]
    one = {"interval": "15s", "input_series": series, "promql_expr_test": expected}
    file = folder / f"{'-'.join(alerts)[:80]}.test.json"
    file.write_text(json.dumps({"rule_files": [str(RULES)], "evaluation_interval": "15s", "tests": [one]}))
    check_rules(file)


def _repeated(value: float | None) -> str:
    if value is None:
        return f"_x{STEPS}"
    return f"{1e12 if math.isinf(value) else value:.12g}x{STEPS - 1}"
