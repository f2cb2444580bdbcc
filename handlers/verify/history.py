r"""Owns the check of the history: the lines of a session's log up to the seal, and their digest.

1. A line is one canonical JSON object with a `type`, ended by \n. Lines are read one at a time.
2. Each seal covers the lines up to its own SealStarted; lines after the last seal's are shown, not covered.
3. Line 1 holds the host's signed request (verify_created). Whether the rest of the log tells the truth is not
   for a digest to say; that it was not changed is.

Source: format.md §11.
"""

from collections.abc import Iterator, Mapping, Sequence

from blake3 import blake3

from handlers.verify.created import check_created, same
from handlers.verify.report import Finding, Summary
from handlers.verify.seals import Mark
from schemas.errors import Rejected
from schemas.format.jcs import strict_loads
from schemas.ports.evidence import HISTORY_LINE_MAX_BYTES, HISTORY_MAX_BYTES, Evidence


def check_history(evidence: Evidence, marks: Sequence[Mark], summary: Summary) -> Iterator[Finding]:
    """The history is the one that every seal covered; counts in `summary` the lines that none covers."""
    lines = evidence.history(HISTORY_LINE_MAX_BYTES)
    if lines is None:
        yield Finding("history.missing", "history", "is not there")
        return
    yield from _walk(lines, marks, summary)


def _walk(lines: Iterator[bytes], marks: Sequence[Mark], summary: Summary) -> Iterator[Finding]:
    digest, size, number = blake3(), 0, 0
    by_line: dict[int, list[Mark]] = {}
    for mark in marks:
        by_line.setdefault(mark.last, []).append(mark)
    last = max(by_line, default=0)
    for number, line in enumerate(lines, 1):
        place = f"history line {number}"
        size += len(line)
        if size > HISTORY_MAX_BYTES:
            yield Finding("history.malformed", place, f"the history is longer than {HISTORY_MAX_BYTES} bytes")
            return
        digest.update(line)
        try:
            event = _event(line)
        except Rejected as error:
            yield Finding("history.malformed", place, error.message)
            return
        if number == 1:
            yield from check_created(event, marks)
        if number > last and event["type"] == "SealStarted":
            yield Finding("history.later_seal", place, "starts a later seal, which is not among these")
        for mark in by_line.get(number, ()):
            yield from _check_mark(mark, event, digest.digest(), number)
    if number < last:
        yield Finding("history.digest", "history", f"has {number} lines, {last} were sealed")
    summary.history_lines = min(number, last)
    summary.history_uncovered = max(0, number - last)


def _event(line: bytes) -> dict[str, object]:
    if not line.endswith(b"\n"):
        raise Rejected("a line has no end, or is too long", code="history.line")
    event = strict_loads(line[:-1])
    if not isinstance(event, dict) or not isinstance(event.get("type"), str):
        raise Rejected("a line is no event with a type", code="history.line")
    return event


def _check_mark(mark: Mark, event: Mapping[str, object], digest: bytes, number: int) -> Iterator[Finding]:
    if digest != mark.digest:
        yield Finding(
            "history.digest",
            f"history lines 1-{number}",
            "are not the ones that were sealed",
            sealed=mark.digest.hex(),
            found=digest.hex(),
        )
    wrong = [name for name, value in mark.started.items() if not same(event.get(name), value)]
    if wrong:
        told = f"is not the start of seal {mark.started['seal_no']}: {', '.join(wrong)}"
        yield Finding("history.seal", f"history line {number}", told)
