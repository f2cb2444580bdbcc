"""The verb `lucid access`: asks a second person for a look at a recording, and answers such requests."""

from typing import Annotated, Any

import typer

from schemas import subjects
from schemas.errors import Misuse
from schemas.events.access import LOOKS, parse_request_id
from schemas.types import utc_text
from streams.cli import attach, output
from streams.cli.groups import group
from streams.cli.output import JsonFlag

RequestId = Annotated[str, typer.Argument(metavar="REQUEST", help="As `lucid access list` shows it.")]
Why = Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why; for the other person.")]

access = group()


@access.callback()
def _group() -> None:
    """Looks at recordings that a second person must allow."""


@access.command(short_help="Ask that a second person allows a look.")
def request(
    session: Annotated[str, typer.Argument(metavar="SESSION", help="Its name.")],
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why; the other person reads it.")],
    look: Annotated[str, typer.Option(metavar="|".join(LOOKS), help="What you want to do.")] = LOOKS[0],
    as_json: JsonFlag = False,
) -> None:
    """Ask that a second person allows you to watch or export a session."""
    if look not in LOOKS:
        raise Misuse(f"--look {look[:40]!r} is not known (allowed: {', '.join(LOOKS)})", code="usage")
    body = {"session": subjects.session_id(session), "look": look, "reason": reason}
    made = attach.ask("access_request", body)
    output.print_result(made, [_line(made)], as_json)
    if not as_json:
        output.note(f"a second person: lucid access approve {made['id']}")


@access.command(short_help="Approve the request of another person.")
def approve(request: RequestId, reason: Why = "", as_json: JsonFlag = False) -> None:
    """Approve the request of another person. The grant ends by itself."""
    _answer("access_approve", request, reason, as_json)


@access.command(short_help="Refuse a request, or end a grant early.")
def refuse(request: RequestId, reason: Why = "", as_json: JsonFlag = False) -> None:
    """Refuse a request, end a grant early, or take your own request back."""
    _answer("access_refuse", request, reason, as_json)


@access.command("list", short_help="List requests, the oldest first.")
def list_requests(
    session: Annotated[str, typer.Option(help="Only of this session.")] = "",
    waiting: Annotated[bool, typer.Option("--waiting", help="Only those without an answer.")] = False,
    after: Annotated[int, typer.Option(help="Continue where another list ended.", min=0)] = 0,
    as_json: JsonFlag = False,
) -> None:
    """Requests, the oldest first: all for approvers and auditors, else your own."""
    asked = {"session": session, "stage": "ASKED" if waiting else "", "after": after}
    found = attach.ask("access_list", asked)
    output.print_result(found, map(_line, found["requests"]), as_json)
    if not as_json and found["next"]:
        output.note(f"lucid: there are more: lucid access list --after {found['next']}")


def _answer(command: str, request: str, reason: str, as_json: bool) -> None:
    parse_request_id(request)
    answered = attach.ask(command, {"request": request, "reason": reason})
    output.print_result(answered, [_line(answered)], as_json)


def _line(one: dict[str, Any]) -> str:
    stage = one["stage"]
    until = {"ASKED": f" until {utc_text(one['ends_us'])}", "GRANTED": f" until {utc_text(one['until_us'])}"}
    by = f", by {one['answered_by']}" if one["answered_by"] else ""
    return (
        f"{one['id']}  {one['requester']} wants to {one['look']} {one['session']}: "
        f"{one['reason']}; {stage}{until.get(stage, '')}{by}"
    )
