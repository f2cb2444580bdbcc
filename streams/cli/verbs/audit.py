"""The verb `lucid audit`: lists, exports and verifies the audit chain.

1. `verify FILE` needs no server: the file, the signed head beside it, and a trust file.
2. `export` writes the lines of the chain as they are stored; `--as` translates them for a SIEM. Only the
   lines themselves can be verified.
3. Exit status of `verify`: 0 whole, 3 broken, 9 whole, but no trusted signer signed a head of it.
"""

import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any, BinaryIO

import typer

from handlers.audit.chain import Finding, Walk
from handlers.audit.siem import FORMATS, translated
from handlers.audit.signed_head import CheckedHead, check_head, signed_entries
from handlers.crypto.trust import Trust, open_trust
from schemas.errors import EXIT_OK, EXIT_SIGNER_UNKNOWN, EvidenceFalse, Misuse, NotFound, Unreadable, outcome
from schemas.events.audit import MAX_ENTRY_BYTES
from schemas.format import dsse
from schemas.types import utc_text
from streams.cli import attach, output
from streams.cli.groups import group
from streams.cli.output import JsonFlag
from streams.cli.verbs.keys import parse_time
from streams.control.client import call
from streams.event_store.audit_pages import PAGE_MOST, chain_lines, signed_heads
from streams.evidence.trust import own_trust
from streams.roles.drivers import Installation, new_file, read_bounded
from streams.scheduling.clock import now_us

HEAD_SUFFIX = ".head"
SHOWN = 20
"""Findings that are printed; --json has all."""

audit = group()


@audit.callback()
def _group() -> None:
    """The audit chain: commands, looks at recordings, their callers and outcomes."""


@audit.command("list", short_help="Entries, the newest first.")
def list_entries(
    session: Annotated[str, typer.Option(help="Only of this session.")] = "",
    who: Annotated[str, typer.Option(help="Only of this caller.")] = "",
    action: Annotated[str, typer.Option(help="Only this command or look.")] = "",
    result: Annotated[str, typer.Option("--outcome", help="Only ok, refused or failed.")] = "",
    since: Annotated[str, typer.Option(metavar="TIME", help="From 2026-03-04T09:12Z on.")] = "",
    until: Annotated[str, typer.Option(metavar="TIME", help="Before this time.")] = "",
    limit: Annotated[int, typer.Option(help="At most so many.", min=1)] = 100,
    after: Annotated[int, typer.Option(help="Continue where another list ended.", min=0)] = 0,
    as_json: JsonFlag = False,
) -> None:
    """Entries of the audit chain, the newest first."""
    asked: dict[str, Any] = {"session": session, "who": who, "action": action, "outcome": result}
    asked |= {"since_us": parse_time(since)} if since else {}
    asked |= {"until_us": parse_time(until)} if until else {}
    found = attach.run(_pages(asked, limit, after))
    output.print_result(found, map(_line, found["entries"]), as_json)
    if found["next"] and not as_json:
        output.note(f"lucid: there are more: add --after {found['next']}")


async def _pages(asked: dict[str, Any], limit: int, after: int) -> dict[str, Any]:
    found: list[dict[str, Any]] = []
    async with attach.attached(serving=True) as jet:
        while True:
            most = {"after": after, "limit": min(limit - len(found), PAGE_MOST), "newest_first": True}
            answer = await call(jet, "audit", {**asked, **most})
            found += answer["entries"]
            after = answer["next"]
            if not after or len(found) >= limit:
                return {"entries": found, "next": after}


@audit.command(short_help="Write the chain out, with its signed end.")
def export(
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", help="Write here, and the signed head to FILE.head."),
    ] = None,
    as_: Annotated[
        str, typer.Option("--as", metavar="ocsf|ecs", help="Field names of a SIEM instead of our own.")
    ] = "",
    accept_break: Annotated[
        bool, typer.Option("--accept-break", help="Sign it although it lacks the last signed entry.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Write the audit chain, one JSON object a line; default: to stdout.

    With --out the signer signs its end: FILE and FILE.head can be verified anywhere.
    """
    if as_ and as_ not in FORMATS:
        raise Misuse(f"--as {as_[:40]!r} is not known (allowed: {', '.join(FORMATS)})", code="usage")
    if out is None:
        if as_json:
            raise Misuse("without --out the lines are the only thing on stdout", code="usage")
        output.require_delivery()
    result = attach.run(_exported(out, as_, accept_break))
    if out is not None:
        line = f"{output.count_of(result['entries'], 'entry').replace('entrys', 'entries')} in {out}"
        output.print_result(result, [line], as_json)
        if not as_ and not as_json:
            output.note(f"verify it: lucid audit verify {out} --trust FILE")


async def _exported(out: Path | None, as_: str, accept_break: bool) -> dict[str, Any]:
    count = 0
    async with attach.attached(serving=True) as jet:
        asked = {"accept_break": True} if accept_break else {}
        signed = await call(jet, "audit_head", asked) if out is not None and not as_ else None
        with ExitStack() as stack:
            file: BinaryIO = stack.enter_context(new_file(out)) if out else sys.stdout.buffer
            async for line in chain_lines(jet):
                if (signed and count == signed["number"]) or (out is None and output.stdout_gone()):
                    break  # entries that came since are not signed
                file.write((translated(line, as_) if as_ else line) + b"\n")
                count += 1
            if out is None:
                output.require_delivery()
        if signed is not None and out is not None:
            with new_file(out.with_name(out.name + HEAD_SUFFIX)) as head:
                head.write(signed["head"].encode())
    return {"out": str(out or "-"), "entries": count, "head": signed}


@audit.command(short_help="Check that no entry was changed, removed or added.")
def verify(
    file: Annotated[
        Path | None,
        typer.Argument(
            metavar="FILE", help="An exported chain; default: the running system's.", readable=False
        ),
    ] = None,
    head: Annotated[
        list[Path] | None,
        typer.Option("--head", metavar="FILE", help="Signed heads that the chain must contain."),
    ] = None,
    trust: Annotated[
        Path | None,
        typer.Option("--trust", metavar="FILE", readable=False, help="The keys that are trusted."),
    ] = None,
    as_json: JsonFlag = False,
) -> int:
    """Check the audit chain: every entry, its place, and the heads that signers signed."""
    trusted = _trust(trust) if trust else None
    envelopes = [_read(path, dsse.MAX_BYTES[dsse.AUDIT_HEAD]) for path in head or ()]
    if file is None:
        walk, heads = attach.run(_verified_here(envelopes, trusted))
    else:
        beside = file.with_name(file.name + HEAD_SUFFIX)
        if beside.exists():
            envelopes.append(_read(beside, dsse.MAX_BYTES[dsse.AUDIT_HEAD]))
        walk, heads = _judged(_lines(file), envelopes, trusted)
    return _report(walk, heads, as_json)


async def _verified_here(envelopes: list[bytes], trusted: Trust | None) -> tuple[Walk, list[CheckedHead]]:
    async with attach.attached() as jet:
        envelopes = [*envelopes, *await signed_heads(jet)]
        trust = trusted or await own_trust(jet, Installation.here().signers)
        walk, heads = _begun(envelopes, trust)
        async for line in chain_lines(jet):
            walk.take(line)
    walk.end()
    return walk, heads


def _judged(
    lines: Iterable[bytes], envelopes: list[bytes], trust: Trust | None
) -> tuple[Walk, list[CheckedHead]]:
    walk, heads = _begun(envelopes, trust)
    for line in lines:
        walk.take(line)
    walk.end()
    return walk, heads


def _begun(envelopes: Iterable[bytes], trust: Trust | None) -> tuple[Walk, list[CheckedHead]]:
    """A walk that knows the heads. With a trust file, a head of any other signer says nothing."""
    walk, heads = Walk(), list[CheckedHead]()
    for raw in envelopes:
        try:
            heads.append(check_head(raw, trust))
        except EvidenceFalse as error:
            walk.findings.append(Finding(error.code, 0, error.message))
    walk.signed = signed_entries(one.head for one in heads if one.listed or trust is None)
    return walk, heads


def _report(walk: Walk, heads: list[CheckedHead], as_json: bool) -> int:
    signed = max((one.head.number for one in heads if one.listed), default=0)
    result = {
        "true": not walk.findings,
        "entries": walk.head.number,
        "signed": signed if not walk.findings else 0,
        "heads": len(heads),
        "findings": [one._asdict() for one in walk.findings],
    }
    output.print_result(result, _verdict(walk, signed, len(heads)), as_json)
    if walk.findings:
        return outcome(EvidenceFalse("", code="audit.broken")).exit_code
    return EXIT_OK if signed or not walk.head.number else EXIT_SIGNER_UNKNOWN


def _verdict(walk: Walk, signed: int, heads: int) -> Iterator[str]:
    for finding in walk.findings[:SHOWN]:
        place = f"entry {finding.number}" if finding.number else "a signed head"
        yield f"  {place}: {finding.text} [{finding.code}]"
    if len(walk.findings) > SHOWN:
        yield f"  and {len(walk.findings) - SHOWN} more"
    count = f"{walk.head.number:,} {'entry' if walk.head.number == 1 else 'entries'}"
    if walk.findings:
        yield f"the audit chain is BROKEN: {count}"
    elif signed:
        yield f"the audit chain holds: {count}, signed up to entry {signed:,}"
    else:
        why = "its signer is not listed" if heads else "no head of it is signed"
        yield f"the audit chain holds: {count}; {why}"


def _trust(path: Path) -> Trust:
    return open_trust(_read(path, dsse.MAX_BYTES[dsse.TRUST]), now_us=now_us())


def _read(path: Path, most: int) -> bytes:
    try:
        raw = read_bounded(path, most)
    except OSError as error:
        raise Unreadable(f"{path} cannot be read: {error.strerror}", code="audit.unreadable") from None
    if raw is None:
        raise NotFound(f"there is no {path}", code="audit.absent")
    return raw


def _lines(path: Path) -> Iterator[bytes]:
    """The lines of a file, without their ends; an overlong one is cut, and so is found."""
    try:
        with path.open("rb") as file:
            while line := file.readline(MAX_ENTRY_BYTES + 2):
                yield line.removesuffix(b"\n")
    except FileNotFoundError:
        raise NotFound(f"there is no {path}", code="audit.absent") from None
    except OSError as error:
        raise Unreadable(f"{path} cannot be read: {error.strerror}", code="audit.unreadable") from None


def _line(entry: dict[str, Any]) -> str:
    on = f" {entry['session']}" if entry["session"] else ""
    how = "asked" if entry["phase"] == "asked" else entry["outcome"]
    code = f" [{entry['code']}]" if entry["code"] else ""
    reason = f" ({entry['reason']})" if entry["reason"] else ""
    what = f"{entry['who']} {entry['action']}{on}: {how}{code}{reason}"
    return f"{entry['number']:>7} {utc_text(entry['at_us'])} {what}"
