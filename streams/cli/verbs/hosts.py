"""The verb `lucid hosts`: lists the hosts that may record here, and shows the sessions that one lacks."""

from typing import Annotated

import typer

from schemas.errors import NotFound
from schemas.format.digest import h
from schemas.subjects import host_id
from streams.cli import attach, output
from streams.cli.groups import group
from streams.cli.output import JsonFlag
from streams.event_store.host_counters import HostCounters, Span, host_counters
from streams.event_store.host_log import HostLog
from streams.evidence.trust import registered_hosts

SHOWN_MOST, TOLD_MOST = 20, 1000
"""Holes of a counter in the lines, and in JSON; their sum is always there."""

hosts = group()


@hosts.callback()
def _group() -> None:
    """The hosts with a registered evidence key."""


@hosts.command("list")
def list_hosts(as_json: JsonFlag = False) -> None:
    """Every host, with the fingerprint of its evidence key."""

    async def work() -> dict[str, bytes]:
        async with attach.attached() as jet:
            return await registered_hosts(jet)

    found = sorted(attach.run(work()).items())
    width = max((len(host) for host, _ in found), default=0)
    listed = [{"host": host, "key": key.hex(), "fingerprint": h(key).hex()} for host, key in found]
    lines = (f"{host:<{width}}  {output.digits(h(key))}" for host, key in found)
    output.print_result({"hosts": listed}, lines, as_json)
    if not found and not as_json:
        output.note("lucid: no hosts; a host is registered when it first records")


@hosts.command("show", short_help="One host: its key, its sessions, and those that never came.")
def show_host(host: Annotated[str, typer.Argument(help="Its name.")], as_json: JsonFlag = False) -> None:
    """One host: its key, its sessions, and the numbers of sessions that never came here."""

    async def work() -> tuple[bytes, HostCounters]:
        async with attach.attached() as jet:
            key = await HostLog(jet).key(host_id(host))
            if key is None:
                raise NotFound(
                    f"host {host} is not registered", code="host.absent", hint="see all: lucid hosts list"
                )
            return key, await host_counters(jet, key)

    key, counters = attach.run(work())
    result = {
        "host": host,
        "key": key.hex(),
        "fingerprint": h(key).hex(),
        "sessions": counters.sessions,
        "last_counter": counters.last,
        "missing": [list(span) for span in counters.missing[:TOLD_MOST]],
        "missing_sessions": counters.missing_count,
    }
    output.print_result(result, _lines(host, key, counters), as_json)


def _lines(host: str, key: bytes, counters: HostCounters) -> list[str]:
    shown = f"{host} · key {output.digits(h(key))}"
    sessions = f"  {output.count_of(counters.sessions, 'session')}, the last counter is {counters.last}"
    if not counters.missing:
        return [shown, f"{sessions}, none is missing"]
    spans, more = counters.missing[:SHOWN_MOST], len(counters.missing) - SHOWN_MOST
    listed = ", ".join(map(_span, spans)) + (f" and {more} more gaps" if more > 0 else "")
    count = output.count_of(counters.missing_count, "session")
    return [
        shown,
        sessions,
        f"  MISSING: {count} (counter {listed});",
        "  begun on the host, and never created here: after a crash of the host, or kept back",
    ]


def _span(span: Span) -> str:
    first, last = span
    return str(first) if first == last else f"{first}-{last}"
