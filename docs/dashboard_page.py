"""Draws the panels of observability/dashboard.json as a page, with the numbers that Prometheus tells.

1. It is no Grafana: it knows the panels `row`, `stat` and `timeseries`, their places, units and legends.
2. The numbers are those of Prometheus, for each query of a panel as it stands in the dashboard.
"""

import html
import json
import math
import urllib.parse
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

DASHBOARD = Path(__file__).parent / "observability" / "dashboard.json"
WIDTH, ROW_PX, STEP_S, RATE = 1240, 27, 2, "20s"
COLOURS = ("#7eb26d", "#eab839", "#6ed0e0", "#ef843c", "#e24d42", "#5195ce", "#ba43a9", "#b7dbab")
SHADES = {"green": "#73bf69", "orange": "#ff9830", "red": "#f2495c"}
STYLE = """body{margin:0;background:#111217;color:#ccccdc;font:12px sans-serif}
div{position:absolute;box-sizing:border-box}
.panel{background:#181b1f;border:1px solid #2c3036;padding:5px 8px}
b{font-weight:500} .big{font-size:25px;left:8px;top:35px} .row{font-size:14px;padding-top:5px}
.key{position:static;white-space:nowrap;overflow:hidden;font-size:10px}
i{font-style:normal;margin-right:9px}"""

Line = tuple[str, list[tuple[float, float]]]


def page(prometheus: str, began_s: float, ended_s: float, rows: Sequence[str], told: str) -> tuple[str, int]:
    """The page with these rows of the dashboard, and its height. told: the line above it."""
    shown, title = [], ""
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        title = panel["title"] if panel["type"] == "row" else title
        if title in rows:
            shown.append(panel)
    top = min(panel["gridPos"]["y"] for panel in shown)
    height = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in shown) - top
    drawn = "".join(_panel(panel, top, prometheus, began_s, ended_s) for panel in shown)
    head = f'<div style="left:10px;top:7px;font-size:14px">{html.escape(told)}</div>'
    text = f"<!doctype html><meta charset=utf-8><style>{STYLE}</style>{head}{drawn}"
    return text, height * ROW_PX + 40


def _panel(panel: dict[str, Any], top: int, prometheus: str, began_s: float, ended_s: float) -> str:
    place, title, unit = panel["gridPos"], html.escape(panel["title"]), WIDTH / 24
    x, y, w, h = place["x"] * unit, (place["y"] - top) * ROW_PX + 32, place["w"] * unit, place["h"] * ROW_PX
    box = f'style="left:{x + 3:.0f}px;top:{y + 3:.0f}px;width:{w - 6:.0f}px;height:{h - 6:.0f}px"'
    if panel["type"] == "row":
        return f'<div class="row" {box}>▾ {title}</div>'
    defaults = panel["fieldConfig"]["defaults"]
    lines = [line for target in panel["targets"] for line in _asked(prometheus, target, began_s, ended_s)]
    if panel["type"] == "stat":
        last = next((points[-1][1] for _, points in lines if points), math.nan)
        told, steps = defaults.get("noValue", "–"), defaults["thresholds"]["steps"]
        colour = ""
        if math.isfinite(last):
            told = f"{last:,.3g}"
            shade = [one["color"] for one in steps if one["value"] is None or last >= one["value"]][-1]
            colour = f' style="color:{SHADES[shade]}"'
        return f'<div class="panel" {box}><b>{title}</b><div class="big"{colour}>{told}</div></div>'
    drawn = _chart(lines, defaults["unit"], began_s, ended_s, w - 24, h - 62)
    return f'<div class="panel" {box}><b>{title}</b>{drawn}</div>'


def _asked(prometheus: str, target: dict[str, str], began_s: float, ended_s: float) -> list[Line]:
    """The lines of one query: their legend and their points."""
    query = target["expr"].replace("$__rate_interval", RATE)
    asked = urllib.parse.urlencode({"query": query, "start": began_s, "end": ended_s, "step": STEP_S})
    with urllib.request.urlopen(f"{prometheus}/api/v1/query_range?{asked}") as answer:
        found = json.load(answer)["data"]["result"]
    lines = []
    for one in found:
        legend = target.get("legendFormat") or ""
        for name, value in one["metric"].items():
            legend = legend.replace(f"{{{{{name}}}}}", value)
        points = [(at, float(value)) for at, value in one["values"]]
        lines.append((legend, [(at, value) for at, value in points if math.isfinite(value)]))
    return lines


def _chart(lines: list[Line], unit: str, began_s: float, ended_s: float, w: float, h: float) -> str:
    most = max((value for _, points in lines for _, value in points), default=0) or 1
    left, across, parts = 52, w - 56, []
    for share in (0, 0.5, 1):
        y = h - share * (h - 10)
        parts.append(f'<path d="M{left} {y:.0f}H{w:.0f}" stroke="#2c3036"/>')
        parts.append(
            f'<text x="{left - 5}" y="{y + 3:.0f}" text-anchor="end">{_with_unit(share * most, unit)}</text>'
        )
    for number, (_, points) in enumerate(lines):
        pieces, last_s = [], 0.0
        for at, value in points:
            x, y = left + (at - began_s) / (ended_s - began_s) * across, h - value / most * (h - 10)
            pieces.append(f"{'L' if at - last_s <= 2 * STEP_S else 'M'}{x:.1f} {y:.1f}")
            last_s = at
        if pieces:
            colour = COLOURS[number % len(COLOURS)]
            parts.append(f'<path d="{"".join(pieces)}" fill="none" stroke="{colour}" stroke-width="1.4"/>')
    names = "".join(
        f'<i><span style="color:{COLOURS[number % len(COLOURS)]}">━</span> {html.escape(legend)}</i>'
        for number, (legend, _) in enumerate(lines)
    )
    picture = (
        f'<svg width="{w:.0f}" height="{h + 6:.0f}" font-size="10" fill="#9a9aa8">{"".join(parts)}</svg>'
    )
    return f'<div style="position:static">{picture}</div><div class="key">{names}</div>'


def _with_unit(value: float, unit: str) -> str:
    if unit == "percentunit":
        return f"{value * 100:.0f} %"
    if unit == "s":
        return f"{value * 1e3:.3g} ms" if value < 1 else f"{value:.3g} s"
    names = {"bytes": "B", "Bps": "B/s", "cps": "/s", "reqps": "/s", "h": "h"}
    for size, prefix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g} {prefix}{names.get(unit, '')}"
    return f"{value:.3g} {names.get(unit, '')}"
