"""The verb `lucid sessions`: lists, shows, pauses, resumes, ends and destroys sessions.

Its other commands are in streams/cli/session_changes.py.
"""

import asyncio
import shlex
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import typer

from schemas import subjects
from schemas.config.values import size_text
from schemas.errors import EXIT_OK, LucidError, Misuse, outcome
from schemas.events.session import State
from schemas.ports import Jet
from schemas.types import utc_text
from streams.cli import attach, output, session_changes
from streams.cli.groups import group
from streams.cli.output import JsonFlag, YesFlag
from streams.cli.verbs.sessions_where import where
from streams.control.client import call
from streams.projections.session_list import PAGE_MOST

Name = Annotated[str, typer.Argument(metavar="SESSION", help="Its name.")]
Pipeline = Annotated[bool, typer.Option("--pipeline", help="The stages instead of the recording.")]
Names = Annotated[list[str], typer.Argument(metavar="SESSION...", help="Their names.")]
DESTROYED_AT_ONCE = 16
"""Far fewer than the service carries out together: other callers keep their turn."""
Shown = Mapping[str, Any]
Lines = Callable[[dict[str, Any]], list[str]]

sessions = group()


@sessions.command("list")
def list_sessions(
    state: Annotated[str, typer.Option(help="Only sessions in this state.")] = "",
    host: Annotated[str, typer.Option(help="Only sessions of this host.")] = "",
    name: Annotated[str, typer.Option(help="Only sessions with this text in their name.")] = "",
    owner: Annotated[str, typer.Option(help="Only sessions of this owner.")] = "",
    project: Annotated[str, typer.Option(help="Only sessions of this project.")] = "",
    environment: Annotated[str, typer.Option(help="Only sessions of this environment.")] = "",
    tag: Annotated[
        list[str] | None, typer.Option(help="Only sessions with this tag; may be repeated.")
    ] = None,
    limit: Annotated[int, typer.Option(help="At most so many.", min=1)] = 100,
    after: Annotated[int, typer.Option(help="Continue where another list ended.", min=0)] = 0,
    as_json: JsonFlag = False,
) -> None:
    """Sessions, the newest first."""
    wanted = state.upper()
    known = [name for name in vars(State) if name.isupper()]
    if wanted and wanted not in known:
        raise Misuse(f"no state is called {state}; there are {', '.join(known)}", code="usage")
    described = {"owner": owner, "project": project, "environment": environment}
    asked = {"state": wanted, "host": host, "text": name, **described, "tags": tag or []}
    found = attach.run(_pages(asked, limit, after))
    if as_json:
        output.emit(found)
    given = [("state", wanted), ("host", host), ("name", name), *described.items()]
    given += [("tag", one) for one in tag or []]
    filters = "".join(f" --{option} {shlex.quote(value)}" for option, value in given if value)
    if not as_json:
        output.say(*_table(found["sessions"]))
        if not found["sessions"] and (filters or after):
            output.note("lucid: no session fits; see all: lucid sessions list")
        elif not found["sessions"] and not found["behind"]:
            output.note("lucid: no sessions; record one: lucid demo")
    if found["behind"]:
        output.note(f"lucid: this list is being rebuilt: {output.count_of(found['behind'], 'event')} to go")
    if found["next"] and not as_json:
        output.note(f"lucid: there are more: lucid sessions list --after {found['next']}{filters}")


async def _pages(asked: dict[str, Any], limit: int, after: int) -> dict[str, Any]:
    """Up to `limit` sessions, collected page by page."""
    found: list[Shown] = []
    async with attach.attached(serving=True) as jet:
        while True:
            page = {"after": after, "limit": min(limit - len(found), PAGE_MOST)}
            answer = await call(jet, "list", {**asked, **page})
            found += answer["sessions"]
            after = answer["next"]
            if not after or len(found) >= limit:
                return {**answer, "sessions": found}


@sessions.command(short_help="One session: its state, its chunks, its seal.")
def show(session: Name, as_json: JsonFlag = False) -> None:
    """One session: its state, its chunks, its seal, the commands that it allows."""
    _ask("show", {"session": subjects.session_id(session)}, as_json, _details)


sessions.command("where", short_help="Where each chunk is, and when it is stored.")(where)


@sessions.command(short_help="Pause a recording until it is resumed.")
def pause(session: Name, pipeline: Pipeline = False, as_json: JsonFlag = False) -> None:
    """Pause a recording: its host sends nothing of the screen until it is resumed.

    With --pipeline the host goes on, and its fragments wait in the stream.
    """
    command, lines = ("pause_pipeline", _pipeline) if pipeline else ("pause", _moved)
    _ask(command, {"session": subjects.session_id(session)}, as_json, lines)


@sessions.command(short_help="Resume a recording, or with --pipeline its stages.")
def resume(session: Name, pipeline: Pipeline = False, as_json: JsonFlag = False) -> None:
    """Resume a paused recording, or with --pipeline a paused pipeline."""
    command, lines = ("resume_pipeline", _pipeline) if pipeline else ("resume", _moved)
    _ask(command, {"session": subjects.session_id(session)}, as_json, lines)


@sessions.command()
def stop(
    session: Name,
    abort: Annotated[bool, typer.Option("--abort", help="End it although its host is gone.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """End a recording; it is sealed when its host has ended it."""
    command, lines = ("abort", _aborted) if abort else ("stop", _moved)
    _ask(command, {"session": subjects.session_id(session)}, as_json, lines)


@sessions.command()
def destroy(names: Names, yes: YesFlag = False, as_json: JsonFlag = False) -> int:
    """Shred a session's key and erase its chunks, for good. Its history stays.

    Each named session is tried; the exit status is that of the first refusal.
    """
    for name in names:
        subjects.session_id(name)
    which = names[0] if len(names) == 1 else output.count_of(len(names), "session")
    output.confirm(f"Destroy {which}? Only copies that were exported can be watched then.", yes)
    answers = attach.run(_destroyed(names))
    refused = [answer for answer in answers if isinstance(answer, LucidError)]
    if len(names) == 1 and refused:
        raise refused[0]
    if as_json:
        results = [
            {"session": name, **output.problem_document(answer)} if isinstance(answer, LucidError) else answer
            for name, answer in zip(names, answers, strict=True)
        ]
        output.emit({"sessions": results} if len(names) > 1 else results[0])
    else:
        for answer in answers:
            if isinstance(answer, LucidError):
                output.note(output.error_text(answer))
            else:
                output.say(*_moved(answer))
    return outcome(refused[0]).exit_code if refused else EXIT_OK


async def _destroyed(names: list[str]) -> list[dict[str, Any] | LucidError]:
    """The answer or error for each name. Many at once take little longer than one."""
    at_once = asyncio.Semaphore(DESTROYED_AT_ONCE)

    async def destroyed(jet: Jet, name: str) -> dict[str, Any] | LucidError:
        async with at_once:
            while True:
                try:
                    return await call(jet, "destroy", {"session": name})
                except LucidError as error:
                    if error.code != "command.slow":
                        return error
                    output.note(f"lucid: waiting: {error.message}")

    async with attach.attached(serving=True) as jet:
        return await asyncio.gather(*(destroyed(jet, name) for name in names))


def _ask(command: str, body: Mapping[str, Any], as_json: bool, lines: Lines) -> None:
    answer = attach.ask(command, body)
    output.print_result(answer, lines(answer), as_json)


def _table(found: list[Shown]) -> list[str]:
    width = max((len(shown["session"]) for shown in found), default=0)
    return [
        f"{shown['session']:<{width}}  {_state(shown):<16}  {utc_text(shown['created_us'], seconds=False)}  "
        f"{_seal(shown):<22}  {shown['host']}".rstrip()
        for shown in found
    ]


def _details(shown: dict[str, Any]) -> list[str]:
    created = utc_text(shown["created_us"], seconds=False)
    lines = [f"{shown['session']} · {_state(shown)} · host {shown['host']} · {created}"]
    hold = "under legal hold" if shown["held"] else "no legal hold"
    lost = f"{output.count_of(shown['losses'], 'chunk')} lost" if shown["losses"] else "none lost"
    chunks, size = output.count_of(shown["recorded"], "chunk"), size_text(shown["plain"])
    if waits := shown.get("waits_for"):
        text = f"waits: {waits['message']}" + (f"; {waits['hint']}" if waits["hint"] else "")
        lines += output.wrapped(f"  {text} [{waits['code']}]", "  ")
    if shown["shredded"]:
        lines.append("  its key is shredded, and nothing opens its recording")
    elif shown["sealed"]:
        lines.append(f"  {chunks} + index, {size}, {lost} · {hold}")
    else:
        lines.append(f"  {chunks}, {size}, {shown['stored']} stored, {lost} · {hold}")
    if shown["sealed"]:
        seal = shown["seal"]
        lines.append(f"  root {output.digits(seal['root'])} · seal {seal['seal_no']}")
    if shown.get("proven_us"):
        lines.append(f"  proven again {utc_text(shown['proven_us'], seconds=False)}")
    if shown["sealed"] and shown["retained_until_us"] and not shown["shredded"]:
        lines.append(f"  kept until {utc_text(shown['retained_until_us'])}: not destroyed earlier")
    if shown["released"]:
        lines.append(f"  the source of the first {output.count_of(shown['released'], 'chunk')} is released")
    if shown["state"] == State.ERROR:
        lines.append(f"  {shown['reason']}")
    if shown["missing"]:
        lines.append(f"  {output.count_of(shown['missing'], 'fragment')} never came: declared as a gap")
    if shown.get("host_gaps"):
        times = output.count_of(shown["host_gaps"], "time")
        lines.append(f"  its host could not record {times}: {shown['host_gap_reason']}")
    if shown["equivocations"]:
        lines.append(f"  its host contradicted itself {output.count_of(shown['equivocations'], 'time')}")
    refused = shown["refused"]
    if refused:
        first = f", the first {len(refused)}" if shown["dead"] > len(refused) else ""
        lines.append(f"  {output.count_of(shown['dead'], 'message')} refused{first}:")
    for (stage, code), count in Counter((one["stage"], one["code"]) for one in refused).items():
        first_of = next(one for one in refused if (one["stage"], one["code"]) == (stage, code))
        lines.append(f"    {count} by {stage}: {code}: {first_of['message']}"[: output.COLUMNS])
        if first_of.get("trace_id"):
            lines.append(f"      trace {first_of['trace_id']}")
    return lines + [
        f"  {'' if number else 'next':<6}{command}" for number, command in enumerate(shown["next"])
    ]


def _pipeline(shown: dict[str, Any]) -> list[str]:
    """A pipeline that was paused or resumed."""
    return [f"the pipeline of {shown['session']} {'is paused' if shown['pipeline_paused'] else 'goes on'}"]


def _moved(shown: dict[str, Any]) -> list[str]:
    texts = {
        State.PAUSING: "chunks in flight are stored, then it is paused",
        State.STOPPING: "its host ends it, then it is sealed",
        State.DESTROYED: f"its key is shredded; tombstone {output.digits(shown.get('tombstone', ''))}",
    }
    why = texts.get(shown["state"])
    return [f"{shown['session']} is {_state(shown)}" + (f": {why}" if why else "")]


def _aborted(shown: dict[str, Any]) -> list[str]:
    return [f"{shown['session']} ends here, without its host; then its recorded part is sealed"]


def _state(shown: Shown) -> str:
    sealed = shown["sealed"] and shown["state"] == State.STOPPED
    return f"{shown['state']}, sealed" if sealed else str(shown["state"])


def _seal(shown: Shown) -> str:
    if not shown["sealed"]:
        return ""
    seal = shown["seal"]
    return f"{output.count_of(seal['data_chunks'], 'chunk')}, {size_text(seal['sealed'])}"


session_changes.add_to(sessions)
