"""The commands of `lucid sessions` that describe a session, hold it, or set it aside, and its statistics.

1. `update` changes the members that are given, and leaves all others as they are. If another person was
   first, nothing of that person's change is lost.
2. The RDP password is no option: a command line is seen by every process of the machine.
"""

from typing import Annotated, Any

import typer

from schemas import subjects
from schemas.api.requests import SessionUpdate
from schemas.config.values import size_text
from schemas.errors import Misuse
from schemas.ports import Jet
from streams.api.asked_sessions import updated
from streams.cli import attach, output
from streams.cli import session_members as members
from streams.cli.output import JsonFlag
from streams.cli.session_members import checked, given
from streams.control.client import call

Name = Annotated[str, typer.Argument(metavar="SESSION", help="Its name.")]
Reason = Annotated[str, typer.Option(help="A short code, kept in its history.")]


def add_to(sessions: typer.Typer) -> None:
    """Add the commands to the group."""
    sessions.command(short_help="Its title, owner, tags.")(details)
    sessions.command(short_help="Change its title, owner, tags.")(update)
    sessions.command(short_help="Place a legal hold.")(hold)
    sessions.command(short_help="Lift a legal hold.")(release)
    sessions.command(short_help="Set a session aside in ERROR.")(error)
    sessions.command(short_help="Sums over all sessions, and by state.")(statistics)


def details(session: Name, as_json: JsonFlag = False) -> None:
    """The members that describe a session to people: its title, owner, tags."""
    found = attach.ask("details", {"session": subjects.session_id(session)})
    output.print_result(found, _described(found), as_json)


def update(
    session: Name,
    name: members.Title = None,
    description: members.Description = None,
    owner: members.Owner = None,
    project: members.Project = None,
    environment: members.Environment = None,
    tag: members.Tags = None,
    priority: members.Priority = None,
    as_json: JsonFlag = False,
) -> None:
    """Change members that describe a session. Members that are not given stay."""
    metadata = given(
        description=description,
        owner=owner,
        project=project,
        environment=environment,
        tags=tag,
        priority=priority,
    )
    asked = checked(SessionUpdate, given(name=name, metadata=metadata))
    if asked == SessionUpdate():
        raise Misuse("no member to change is given", code="usage", hint="see lucid sessions update --help")

    async def work() -> dict[str, Any]:
        async with attach.attached(serving=True) as jet:
            return await _updated(jet, subjects.session_id(session), asked)

    found = attach.run(work())
    output.print_result(found, _described(found), as_json)


async def _updated(jet: Jet, session: str, asked: SessionUpdate) -> dict[str, Any]:
    await call(jet, "update", updated(asked, session, revision=None))
    return await call(jet, "details", {"session": session})


def hold(session: Name, reason: Reason = "operator", as_json: JsonFlag = False) -> None:
    """Place a legal hold: nobody may destroy the session until it is released."""
    _held(session, True, reason, as_json)


def release(session: Name, reason: Reason = "operator", as_json: JsonFlag = False) -> None:
    """Lift a legal hold."""
    _held(session, False, reason, as_json)


def error(session: Name, reason: Reason = "operator", as_json: JsonFlag = False) -> None:
    """Set a session aside in ERROR, until lucid recover."""
    shown = attach.ask("error", {"session": subjects.session_id(session), "reason": reason})
    output.print_result(shown, [f"{session} is {shown['state']}: lucid recover {session}"], as_json)


def statistics(
    host: Annotated[str, typer.Option(help="Only sessions of this host.")] = "",
    name: Annotated[str, typer.Option(help="Only sessions with this text in their name.")] = "",
    as_json: JsonFlag = False,
) -> None:
    """Sums over all sessions, and by state."""
    totals = attach.ask("totals", {"host": host, "text": name})
    lines = [_sums("all", totals), *(_sums(state, sums) for state, sums in totals["states"].items())]
    output.print_result(totals, lines, as_json)
    if totals["behind"]:
        output.note(f"lucid: this is being rebuilt: {output.count_of(totals['behind'], 'event')} to go")


def _held(session: str, held: bool, reason: str, as_json: bool) -> None:
    body = {"session": subjects.session_id(session), "held": held, "reason": reason}
    shown = attach.ask("hold", body)
    state = "under legal hold: nobody may destroy it" if shown["held"] else "under no legal hold"
    output.print_result(shown, [f"{session} is {state}"], as_json)


def _sums(label: str, sums: dict[str, Any]) -> str:
    plain, sealed = size_text(sums["plain_bytes"]), size_text(sums["sealed_bytes"])
    seconds = sums["duration_us"] / 1e6
    return (
        f"{label:<9}  {output.count_of(sums['sessions'], 'session')}, "
        f"{output.count_of(sums['chunks'], 'chunk')}, {plain}, {sealed} sealed, {seconds:,.0f} s"
    )


def _described(found: dict[str, Any]) -> list[str]:
    """One line for each member that is given; an object's members by their path."""
    shown: dict[str, Any] = {}
    for name, member in found["details"].items():
        inner = member.items() if isinstance(member, dict) else ()
        shown |= {f"{name}.{part}": value for part, value in inner} or {name: member}
    return [f"{found['session']} · revision {found['revision']}"] + [
        f"  {name:<22}{', '.join(map(str, value)) if isinstance(value, list) else value}"
        for name, value in shown.items()
        if value not in ("", None, [])
    ]
