"""The verb `lucid keys`: the master key, copies and places of keys/, and the signers of manifests."""

from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from schemas.errors import Denied, LucidError, Misuse, Retryable
from schemas.types import utc_text
from streams.cli import attach, output
from streams.cli.groups import group
from streams.cli.output import JsonFlag, YesFlag
from streams.cli.verbs import key_copies, key_moves
from streams.control.client import call, read_error
from streams.scheduling.clock import now_us

TRUST_HINT = "hand out a new trust file: lucid export --trust-file FILE"

keys = group()
signer = group()
keys.add_typer(signer, name="signer")
keys.command(short_help="Seal a copy of keys/ under a passphrase.")(key_copies.copy)
keys.command("restore", short_help="Put a copy of keys/ back.")(key_copies.restore_copy)
keys.command("move", short_help="Move keys/ to another folder.")(key_moves.move_folder)
keys.command("mirror", short_help="Fill the mirror of keys/, or keys/ from it.")(key_moves.mirror_folder)


@keys.callback()
def _group() -> None:
    """The master key, which wraps every session's data key, and the signers."""


@signer.callback()
def _signers() -> None:
    """The signers of manifests and tombstones."""


@keys.command(short_help="Make a new version of the master key.")
def rotate(as_json: JsonFlag = False) -> None:
    """Make a new version of the master key, and put every data key under it."""
    done = _rotated()
    count = output.count_of(done["rewrapped"], "data key")
    line = f"master key version {done['version']}: {count} wrapped anew, the old key files overwritten"
    output.print_result(done, [line], as_json)
    if done["unproven"] and not as_json:
        left = output.count_of(done["unproven"], "old key file")
        output.note(f"{left} may still be on the disk: docs/keys.md")


@signer.command("list")
def list_signers(as_json: JsonFlag = False) -> None:
    """Every signer, past and present, oldest first."""
    done = attach.ask("signers", {})
    output.print_result(done, map(_line, done["signers"]), as_json)


@signer.command("rotate")
def rotate_signer(as_json: JsonFlag = False) -> None:
    """Make a new signer; the signatures of the one before stay valid."""
    made = attach.ask("rotate_signer", {})
    _print_signer(made, as_json)


@signer.command("revoke", short_help="Make every signature of a signer invalid.")
def revoke_signer(
    name: Annotated[str, typer.Argument(metavar="NAME", help="As `lucid keys signer list` shows it.")],
    since: Annotated[
        str,
        typer.Option(metavar="TIME", help="From when it could be misused: 2026-03-04T09:12Z; default: now."),
    ] = "",
    yes: YesFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """Make every signature of a signer invalid, old ones too: its key is in other hands."""
    since_us = parse_time(since) if since else now_us()
    output.confirm(f"Revoke {name}? Of all that it ever signed, verify will say: signer unknown.", yes)
    revoked = attach.ask("revoke_signer", {"name": name, "since_us": since_us})
    _print_signer(revoked, as_json)


def parse_time(text: str) -> int:
    """A past time in µs; UTC if it names no zone. Raises Misuse (usage)."""
    try:
        given = datetime.fromisoformat(text)
        at_us = int((given if given.tzinfo else given.replace(tzinfo=UTC)).timestamp() * 1e6)
    except (ValueError, OverflowError):
        at_us = 0
    if not 0 < at_us <= now_us():
        raise Misuse(
            f"--since {text[:40]!r} is no time that has been (such as 2026-03-04T09:12Z)", code="usage"
        )
    return at_us


def _rotated() -> dict[str, Any]:
    """Rotate all keys. One answer covers the keys of some seconds; the next call continues after them."""

    async def work() -> dict[str, Any]:
        counted = Counter[str]()
        after, first_refused = "", None
        async with attach.attached(serving=True) as jet:
            while True:
                done = await call(jet, "rotate", {"after": after})
                counted.update({name: done[name] for name in ("rewrapped", "unproven", "refused")})
                after, first_refused = done["after"], first_refused or done["first_refused"]
                rewrapped = output.count_of(counted["rewrapped"], "data key")
                if after:
                    output.note(f"{rewrapped} wrapped anew, going on")
                    continue
                if counted["refused"]:
                    text = f"master key version {done['version']}: {rewrapped} wrapped anew"
                    raise _not_rotated(text, counted["refused"], read_error(first_refused))
                return {"version": done["version"], **counted}

    return attach.run(work())


def _not_rotated(text: str, refused: int, first: LucidError) -> LucidError:
    """The error of a rotation that left keys unchanged. An error that a retry may cure keeps its own code."""
    text = f"{text}, {refused} could not be and stay as they were; the first: {first.message}"
    if isinstance(first, Retryable):
        hint = f"{first.hint}, then rotate again" if first.hint else "rotate again"
        return type(first)(text, code=first.code, hint=hint)
    hint = "mend the key files that the conductor's log names, then rotate again"
    return Denied(text, code="keys.not_rotated", hint=hint)


def _print_signer(signer: Mapping[str, Any], as_json: bool) -> None:
    output.print_result(signer, [_line(signer)], as_json)
    if not as_json:
        output.note(TRUST_HINT)


def _line(signer: Mapping[str, Any]) -> str:
    if signer["revoked_us"]:
        validity = f"revoked since {utc_text(signer['revoked_us'])}"
    else:
        validity = f"from {utc_text(signer['from_us'])}" if signer["from_us"] else "from the beginning"
        until_us = signer["until_us"]
        validity += f" until {utc_text(until_us)}" if until_us else ", signs now"
    return f"{signer['name']}  {output.key_digits(signer['fingerprint'])}  {validity}"
