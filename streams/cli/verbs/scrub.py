"""The verb `lucid scrub`: shows the scrub, begins a pass, proves one session now, or acknowledges alarms."""

import asyncio
from typing import Annotated, Any

import typer

from schemas import subjects
from schemas.config.values import size_text
from schemas.errors import EXIT_OK, EvidenceFalse, Misuse, NotFound, outcome
from schemas.ports import Jet
from schemas.types import utc_text
from streams.cli import attach, output
from streams.cli.output import JsonFlag
from streams.control.client import call

ASK_S = 0.5


def scrub(
    session: Annotated[str, typer.Argument(metavar="[SESSION]", help="Prove this one next.")] = "",
    now: Annotated[bool, typer.Option("--now", help="Begin a pass now.")] = False,
    acknowledge: Annotated[
        bool, typer.Option("--acknowledge", help="Known to me: the alarms of SESSION, or those of streams.")
    ] = False,
    as_json: JsonFlag = False,
) -> int:
    """The background check of everything that is stored: its pass, its rate, its alarms and findings.

    With SESSION it waits until that session was checked; exit status 3: there was an alarm. An alarm stays
    until its place was found good again. --acknowledge ends its alert, and checks nothing.
    """
    if session:
        subjects.session_id(session)
    if acknowledge and now:
        raise Misuse("--acknowledge and --now exclude each other", code="usage")
    found = attach.run(_acknowledged(session) if acknowledge else _asked(session, now))
    output.print_result(found, _lines(found), as_json)
    if acknowledge:
        return EXIT_OK
    alarms = [one for one in found["findings"] if one["session"] == session and one["outcome"] == "alarm"]
    return outcome(EvidenceFalse("", code="scrub")).exit_code if session and alarms else EXIT_OK


async def _asked(session: str, now: bool) -> dict[str, Any]:
    async with attach.attached(serving=True) as jet:
        if not session:
            return await call(jet, "scrub_now" if now else "scrub", {})
        await call(jet, "show", {"session": session})  # an absent one is refused here
        return await _of_session(jet, session)


async def _acknowledged(session: str) -> dict[str, Any]:
    async with attach.attached(serving=True) as jet:
        return await call(jet, "scrub_acknowledge", {"session": session})


async def _of_session(jet: Jet, session: str) -> dict[str, Any]:
    """The findings of a check that begins now, once it is over."""
    found = await call(jet, "scrub_now", {"session": session})
    since_us = found["now_us"]
    while session in found["waiting"]:
        await asyncio.sleep(ASK_S)
        found = await call(jet, "scrub", {})
    news = [one for one in found["findings"] if one["session"] == session and one["at_us"] >= since_us]
    if session not in found["checked"] and not news:
        raise NotFound(f"session {session} was not checked: it is destroyed", code="scrub.gone")
    return {**found, "findings": news, "asked": session}


def _lines(found: dict[str, Any]) -> list[str]:
    rate = found["bytes_per_s"]
    if not rate and not found.get("asked"):
        return ["the scrub is off; SCRUB_MB_PER_S turns it on"]
    lines = []
    if "acknowledged" in found:
        return [f"{output.count_of(found['acknowledged'], 'alarm')} acknowledged", *_alarm_lines(found)]
    if asked := found.get("asked"):
        bad = sum(one["outcome"] == "alarm" for one in found["findings"])
        lines.append(
            f"{asked} {output.mark(not bad)} {'is proven' if not bad else 'is not as it was sealed'}"
        )
    else:
        lines += [*_pass_lines(found), *_alarm_lines(found)]
    for one in found["findings"]:
        at = utc_text(one["at_us"], seconds=False)
        mark = output.mark(one["outcome"] == "repaired")
        text = f"  {mark} {at}  {_where(one)}: {one['text']} [{one['code']}]"
        lines += output.wrapped(text, "      ")
    return lines


def _alarm_lines(found: dict[str, Any]) -> list[str]:
    """The places that are damaged now, those first that nobody has acknowledged."""
    lines = []
    for one in found["alarms"]:
        since = utc_text(one["since_us"], seconds=False)
        known = f"; known to {one['acknowledged_by']}" if one["acknowledged_us"] else ""
        mark = output.mark(one["acknowledged_us"] > 0)
        text = f"  {mark} {_where(one)} is damaged since {since}: {one['text']} [{one['code']}]{known}"
        lines += output.wrapped(text, "      ")
    if found["alarms_in_all"] > len(found["alarms"]) or found["alarms_more"]:
        more = ", or more" if found["alarms_more"] else ""
        lines.append(f"  {found['alarms_in_all']} places are damaged{more}")
    return lines


def _where(one: dict[str, Any]) -> str:
    return f"{one['session']}, {one['place']}" if one["session"] else str(one["place"])


def _pass_lines(found: dict[str, Any]) -> list[str]:
    now, last, rate = found["pass"], found["last"], found["bytes_per_s"]
    lines = []
    if found["running"]:
        at = f", at {found['at']['session']}" if found["at"]["session"] else ""
        lines.append(f"pass {now['number']} since {utc_text(now['began_us'], seconds=False)}{at}")
        lines.append(f"  {_counts(now)}, at most {size_text(int(rate))}/s")
        if found["behind_s"]:
            lines.append(f"  gives way to a chunk that waits for {found['behind_s']:.0f} s; reads a tenth")
    elif last is None:
        lines.append(f"no pass yet, at most {size_text(int(rate))}/s; begin one: lucid scrub --now")
    if last is not None:
        lines.append(f"pass {last['number']} ended {utc_text(last['ended_us'], seconds=False)}")
        lines.append(f"  {_counts(last)}; {last['repaired']} repaired, {_alarms(last['alarms'])}")
        lines.append(f"  {last['busy_us'] / 1e6:.1f} s busy, {last['cpu_us'] / 1e6:.1f} s of CPU")
    return lines


def _counts(one: dict[str, Any]) -> str:
    sessions, files = output.count_of(one["sessions"], "session"), output.count_of(one["chunks"], "file")
    return f"{sessions}, {files}, {output.count_of(one['fragments'], 'fragment')}, {size_text(one['bytes'])}"


def _alarms(count: int) -> str:
    return output.coloured(output.count_of(count, "alarm"), output.RED) if count else "no alarm"
