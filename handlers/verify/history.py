r"""Checks the history: the lines of a session's event log up to the seal, and the host's request in line 1.

1. A line is one canonical JSON object with a `type`, ended by \n. Lines are read one at a time.
2. Each seal covers the lines up to its own SealStarted. Lines after the last seal are counted, not covered.
3. Line 1 is Created. Its members session, host, host_key, counter, prev_genesis and settings are the host's
   request, and `request` is the host's signature over them: no signer can write another.
4. Every manifest names the same session, host, key, counter and settings. So evidence of one session cannot
   be sealed again as another's.
5. All other members rest on the signer's word: the digest proves that they did not change, not that they
   are true.

Source: format.md §11.
"""

from collections.abc import Iterator, Mapping, Sequence

from blake3 import blake3

from handlers.crypto.signatures import verify_signature
from handlers.verify.report import Finding, Summary
from handlers.verify.seals import Mark
from schemas.errors import Rejected
from schemas.events.commands import CREATE_PREFIX
from schemas.format.jcs import jcs, strict_loads
from schemas.ports.evidence import HISTORY_LINE_MAX_BYTES, HISTORY_MAX_BYTES, Evidence


def check_history(evidence: Evidence, marks: Sequence[Mark], summary: Summary) -> Iterator[Finding]:
    """Check the history against every seal; count in `summary` the lines that none covers."""
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
        text = f"is not the start of seal {mark.started['seal_no']}: {', '.join(wrong)}"
        yield Finding("history.seal", f"history line {number}", text)


ASKED = ("counter", "host", "host_key", "prev_genesis", "session", "settings")
"""The members that the host signs."""
PLACE = "history line 1"


def check_created(event: Mapping[str, object], marks: Sequence[Mark]) -> Iterator[Finding]:
    """Check line 1 of the history. marks: each seal's claims about it."""
    asked = {name: event[name] for name in ASKED if name in event}
    if event.get("type") != "Created" or len(asked) != len(ASKED):
        yield Finding("history.created", PLACE, "is not the creation of a session")
        return
    if not _is_signed(asked, event.get("request")):
        yield Finding("history.request", PLACE, "the request in it is not signed by the host's key")
    for mark in marks:
        wrong = [name for name, value in mark.created.items() if not same(event.get(name), value)]
        settings = event["settings"]
        wrong += [
            f"settings.{name}"
            for name, value in mark.settings.items()
            if not isinstance(settings, dict) or not same(settings.get(name), value)
        ]
        if wrong:
            text = f"seal {mark.started['seal_no']} is of another session than the host asked for"
            yield Finding("history.session", PLACE, f"{text}: {', '.join(wrong)}")


def same(value: object, expected: str | int) -> bool:
    """Return whether both are equal and of one type: in JSON true is not 1."""
    return type(value) is type(expected) and value == expected


def _is_signed(asked: Mapping[str, object], request: object) -> bool:
    key = asked["host_key"]
    if not isinstance(key, str) or not isinstance(request, str):
        return False
    try:
        public, signature = bytes.fromhex(key), bytes.fromhex(request)
        one_form = public.hex() == key and signature.hex() == request
        return one_form and verify_signature(public, jcs(dict(asked)), signature, CREATE_PREFIX)
    except (ValueError, Rejected):
        return False
