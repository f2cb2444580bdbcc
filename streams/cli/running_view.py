"""Shows all running sessions, redrawn on a terminal: those that need attention first."""

import asyncio
import contextlib
from typing import Any

from schemas.ports import Jet
from streams.cli import attach, output
from streams.cli.live import LiveLines
from streams.cli.output import COLUMNS
from streams.control.client import call

LOOK_S = 1.0
ROWS = 20
ROWS_JSON = 200
ORDER = ("chunk", "compress", "encrypt", "merkle", "store", "dead", "lost")


async def watch_all(follow: bool, as_json: bool) -> None:
    """Show every running session until interrupted; without `follow` once. --json: one object a look."""
    live = LiveLines(LOOK_S / 2)
    last: list[str] = []
    async with attach.attached(serving=True) as jet:
        try:
            while True:
                found = await _look(jet, ROWS_JSON if as_json else ROWS)
                shown = lines(found)
                if as_json:
                    output.emit(found)
                elif not follow or (not live.drawn and shown != last):
                    output.say(*shown)  # in a pipe: what has changed
                elif live.drawn:
                    with contextlib.suppress(OSError):
                        live.draw(shown, now=True)
                last = shown
                if not follow or output.stdout_gone():
                    return
                await asyncio.sleep(LOOK_S)
        finally:
            with contextlib.suppress(OSError):
                live.clear()


async def _look(jet: Jet, limit: int) -> dict[str, Any]:
    return await call(jet, "running", {"limit": limit})


def lines(found: dict[str, Any]) -> list[str]:
    """The screen."""
    states = ", ".join(f"{count:,} {state}" for state, count in sorted(found["states"].items()))
    head = output.count_of(found["count"], "session")
    shown = [f"{head} not finished{': ' if states else ''}{states}"[:COLUMNS]]
    if found["errors"]:
        shown.append(f"  {output.count_of(found['errors'], 'session')} with an error")
    for row in found["sessions"]:
        shown += _row(row)
    if found["more"]:
        shown.append(f"  and {found['more']:,} more")
    return shown


def _row(row: dict[str, Any]) -> list[str]:
    stages = " ".join(f"{name} {row['stages'][name]}" for name in ORDER if row["stages"].get(name))
    lag = f"{row['lag_us'] / 1e6:.1f} s" if row["lag_us"] else "-"
    state = f"{row['state']}, paused" if row["paused"] else row["state"]
    first = f"  {row['session'][:24]:<24} {state:<16} {row['stored']:>6}/{row['recorded']:<6} lag {lag:>7}"
    found = [f"{first}  {row['host']}"[:COLUMNS]]
    more = [stages, f"{row['waiting']} waiting" if row["waiting"] else "", row["error"]]
    if text := " · ".join(part for part in more if part):
        found.append(f"      {text}"[:COLUMNS])
    return found
