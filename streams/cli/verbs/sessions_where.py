"""The command `lucid sessions where`: shows where each chunk of a session is."""

from typing import Annotated, Any

import typer

from schemas import subjects
from streams.cli import attach, output
from streams.cli.output import COLUMNS, JsonFlag
from streams.control.client import call
from streams.control.where import PAGE_MOST

SCREEN_CHUNKS = 15
"""One screen for people."""
ORDER = ("chunk", "compress", "encrypt", "merkle", "store", "stored", "dead", "lost")


def where(
    session: Annotated[str, typer.Argument(metavar="SESSION", help="Its name.")],
    every: Annotated[bool, typer.Option("--all", help="Stored chunks, too.")] = False,
    limit: Annotated[int | None, typer.Option(help="At most so many chunks.", min=1)] = None,
    after: Annotated[int, typer.Option(help="Continue behind this chunk.", min=-1)] = -1,
    as_json: JsonFlag = False,
) -> None:
    """Where each chunk is: its stage, tries, last error, trace, and when it will be stored.

    For people: the chunks that are not stored. --json: every chunk.
    """
    subjects.session_id(session)
    most = limit or (PAGE_MOST if as_json else SCREEN_CHUNKS)
    body = {"session": session, "unstored": not (every or as_json)}
    found = attach.run(_pages(body, most, after, whole=as_json and limit is None))
    output.print_result(found, lines(found, every=every), as_json)


async def _pages(body: dict[str, Any], most: int, after: int, *, whole: bool) -> dict[str, Any]:
    """Up to `most` chunks, or all of them, collected page by page. The sums are those of the first page."""
    found: dict[str, Any] = {}
    async with attach.attached(serving=True) as jet:
        while True:
            limit = min(PAGE_MOST if whole else most - len(found.get("chunks", ())), PAGE_MOST)
            page = await call(jet, "where", {**body, "after": after, "limit": limit})
            chunks = [*found.get("chunks", ()), *page["chunks"]]
            found = {**page, **found, "chunks": chunks, "next": page["next"], "more": page["more"]}
            if page["next"] is None or (not whole and len(chunks) >= most):
                return found
            after = page["next"]


def lines(found: dict[str, Any], *, every: bool = False) -> list[str]:
    """The screen."""
    stages, now_us = found["stages"], found["now_us"]
    shown = [
        f"{found['session']} · {found['state']} · {output.count_of(found['recorded'], 'chunk')}, "
        f"{stages.get('stored', 0)} stored{_left(found['expected_us'], now_us)}"
    ]
    if moving := [f"{stages[name]} {_at(name)}" for name in ORDER if stages.get(name) and name != "stored"]:
        shown.append(f"  {' · '.join(moving)}")
    if found["waiting"]:
        shown.append(f"  {output.count_of(found['waiting'], 'fragment')} waiting, in no chunk yet")
    if waits := found.get("waits_for"):
        shown += output.wrapped(f"  waits: {waits['message']} [{waits['code']}]", "  ")
    if found["chunks"]:
        shown.append(f"  {'chunk':>8}  {'stage':<8}  {'since':>7}  {'tries':>5}  {'left':>7}  trace")
    for one in found["chunks"]:
        shown.append(_line(one, now_us))
        if one["error"]:
            error = one["error"]
            shown.append(f"            {error['code']}: {error['message']}"[:COLUMNS])
    if found["next"] is not None:
        command = f"lucid sessions where {found['session']}{' --all' if every else ''}"
        shown.append(f"  and {found['more']:,} more: {command} --after {found['next']}")
    return shown


def _line(one: dict[str, Any], now_us: int) -> str:
    since = _age(now_us - one["since_us"]) if one["since_us"] and now_us else "-"
    left = _age(one["expected_us"] - now_us) if one["expected_us"] else "-"
    tries = "-" if one["attempts"] is None else str(one["attempts"])
    return (
        f"  {one['index']:>8}  {one['stage']:<8}  {since:>7}  {tries:>5}  {left:>7}  {one['trace_id'] or '-'}"
    )


def _at(stage: str) -> str:
    return stage if stage in ("dead", "lost") else f"at {stage}"


def _left(expected_us: int | None, now_us: int) -> str:
    return f" · about {_age(expected_us - now_us)} for the rest" if expected_us else ""


def _age(us: int) -> str:
    """0.3 s, 12 s, 5 min, 3 h, 2 d."""
    seconds = max(us, 0) / 1e6
    for size, name in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {name}"
    return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
