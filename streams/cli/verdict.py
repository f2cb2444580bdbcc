"""Prints the report of a verification.

1. True evidence is a few cells. False evidence is its findings alone: place, message, digests.
2. At most SHOWN findings of one area are printed; --json has them all.
3. It prints text as it is: the verifier has made every text of a stranger safe.
"""

import re
from collections.abc import Iterator
from dataclasses import asdict
from itertools import zip_longest
from typing import Any

from handlers.verify.report import Finding, Report
from schemas.config.values import size_text
from schemas.errors import EXIT_OK, EXIT_SIGNER_UNKNOWN
from schemas.format.trust import Tombstone
from schemas.types import utc_text
from streams.cli.output import (
    COLUMNS,
    GREEN,
    RED,
    YELLOW,
    coloured,
    count_of,
    digits,
    key_digits,
    mark,
    wrapped,
)

SHOWN = 5
NOBODY = "none"
"""The approver of every new tombstone: a name in an older one was the word of the caller."""
LEFT = 45
"""Least columns of the left cell."""
AREA = 10
COLOUR = re.compile(r"\x1b\[[0-9]*m")
AREAS = {
    "verify": "verify",
    "manifest": "manifest",
    "tombstone": "tombstone",
    "host": "host chain",
    "chain": "host chain",
    "gap": "host chain",
    "part": "host chain",
    "track": "host chain",
    "equivocation": "host chain",
    "ending": "ending",
    "end": "ending",
    "chunk": "chunks",
    "tree": "root",
    "totals": "root",
    "history": "history",
    "keys": "contents",
    "open": "contents",
    "rows": "contents",
    "fragment": "contents",
    "cut": "contents",
    "file": "files",
}
"""By the area of a finding's code: the cell that shows it."""


def as_json(report: Report) -> dict[str, Any]:
    """The whole report, by name."""
    return {
        "verdict": report.verdict,
        "exit_code": report.exit_code,
        **asdict(report.summary),
        "findings": [finding.as_json() for finding in report.findings],
        "notes": [note.as_json() for note in report.notes],
        "unlisted": report.unlisted,
    }


def lines(report: Report, name: str, trust_name: str, hint: str = "") -> Iterator[str]:
    """The lines of a report. name: of evidence without a readable name; hint: the repair if it is false."""
    shown = report.summary.session or name
    yield from _false(report) if report.findings else _cells(report, trust_name)
    if report.summary.on_signers_word and not report.findings:
        yield from wrapped(f"  on the signer's word: {', '.join(report.summary.on_signers_word)}", "    ")
    for note in report.notes:
        yield from wrapped(f"NOTE {note.place}: {note.message} [{note.code}]", "     ")
    if report.findings:
        yield _verdict_false(report, shown, hint)
    elif report.exit_code == EXIT_SIGNER_UNKNOWN:
        party, verb, code = _unlisted(report)
        unknown = f"{shown} is consistent, but {trust_name} {verb} its {party}"
        yield from wrapped(f"{coloured(unknown, YELLOW)} [{code}]", "  ")
    elif report.exit_code == EXIT_OK:
        yield coloured(f"{shown} is true: nothing changed since {utc_text(report.summary.sealed_us)}", GREEN)


def tombstone_lines(report: Report, tombstone: Tombstone, trust_name: str) -> Iterator[str]:
    """The lines of a tombstone that is not false."""
    uid, signer = digits(tombstone.uid, 32), key_digits(report.summary.signer)
    yield f"session {uid}"
    unproven = (
        f", approved by {tombstone.approver} on that word alone" if tombstone.approver != NOBODY else ""
    )
    yield f"  destroyed {utc_text(tombstone.at_us)} by {tombstone.who}{unproven}"
    until_us = tombstone.backups_until_us
    backups = f"backups until {utc_text(until_us)}" if until_us else "no backups are named"
    yield f"  reason {tombstone.reason}; {backups}"
    yield from (f"  {place.place}: {place.outcome}" for place in tombstone.places)
    if report.summary.signer_listed:
        yield coloured(f"signed by {signer}, in {trust_name}", GREEN)
    else:
        verb, code = _unknown(report)
        yield coloured(f"signed by {signer}, which {trust_name} {verb}", YELLOW) + f" [{code}]"


def _unlisted(report: Report) -> tuple[str, str, str]:
    """The untrusted party, its standing in the trust file, and the code. The signer comes before the host."""
    summary = report.summary
    if not summary.signer_listed:
        return f"signer {key_digits(summary.signer)}", *_unknown(report)
    party = f"host {summary.host} with the key {key_digits(summary.host_key)}"
    if summary.host_revoked:
        return party, "revokes", "host.revoked"
    return party, "does not list", "host.unlisted"


def _unknown(report: Report) -> tuple[str, str]:
    """The standing of an untrusted signer in the trust file, and the code."""
    if report.summary.signer_revoked:
        return "revokes", "signer.revoked"
    return "does not list", "signer.unlisted"


def _cells(report: Report, trust_name: str) -> Iterator[str]:
    summary = report.summary
    listed = f"in {trust_name}" if summary.signer_listed else f"not in {trust_name}"
    gaps = "no gap" if not summary.gaps else count_of(summary.gaps, "gap")
    later = f", {summary.history_uncovered} later not" if summary.history_uncovered else ""
    cells = [
        f"manifest {mark(True)} {key_digits(summary.signer)}, {listed}",
        f"host chain {mark(True)} seq 0–{summary.last_seq}, {gaps}",
        f"chunks   {mark(True)} {summary.chunks_good} of {summary.chunks}, {size_text(summary.sealed_bytes)}",
        f"root       {mark(True)} {digits(summary.merkle_root)}",
        f"history  {mark(True)} {count_of(summary.history_lines, 'line')} sealed{later}",
    ]
    if summary.opened:
        cells.append(f"contents   {mark(True)} opened, as signed")
    pairs = list(zip_longest(cells[::2], cells[1::2], fillvalue=""))
    width = max(LEFT, *(_width(left) + 1 for left, _ in pairs))
    for left, right in pairs:
        if right and 2 + width + _width(right) <= COLUMNS:
            yield f"  {left}{' ' * (width - _width(left))}{right}"
        else:
            yield from (f"  {cell}" for cell in (left, right) if cell)


def _width(cell: str) -> int:
    """Visible columns."""
    return len(COLOUR.sub("", cell))


def _false(report: Report) -> Iterator[str]:
    by_area: dict[str, list[Finding]] = {}
    for finding in report.findings:
        by_area.setdefault(AREAS[finding.code.split(".")[0]], []).append(finding)
    for area, found in by_area.items():
        good = report.summary.chunks_good
        rest = "the other one is" if good == 1 else f"the other {good} are"
        others = f"; {rest} good" if area == "chunks" and good else ""
        for number, finding in enumerate(found[:SHOWN]):
            head = f"  {area if number == 0 else '':<{AREA}} {mark(False)} "
            text = f"{finding.place.removeprefix('chunks/')} {finding.message}"
            indent = " " * (AREA + 5)
            yield from wrapped(head + text + (others if number == 0 else ""), indent)
            if finding.sealed:
                yield f"{indent}sealed {digits(finding.sealed)}   found {digits(finding.found)}"
        if len(found) > SHOWN:
            yield f"  {'':<{AREA}}   and {len(found) - SHOWN} more; --json lists them all"


def _verdict_false(report: Report, name: str, hint: str) -> str:
    more = f" and {len(report.findings) - 1} more" if len(report.findings) > 1 else ""
    verdict = coloured(f"{name} is FALSE", RED) + f" [{report.findings[0].code}]{more}"
    return f"{verdict}; {hint}" if hint else verdict
