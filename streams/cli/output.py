"""Writes results, notes and errors of the command line.

1. Data goes to stdout, everything else to stderr. With --json stdout holds one JSON result, also for an
   error.
2. Lines fit 80 columns. MB = 10⁶ bytes. Digests are shown in fours: 16 digits, keys 8; --json has them whole.
3. Colour marks state only, and never alone. Piped, or under NO_COLOR: no colour and only ASCII marks.
4. An error names the fault, the object, the repair and the code. Library errors are translated
   before they come here. Any error but a LucidError is a bug, and is shown with its traceback.
5. Nothing here raises when a stream cannot be written (streams.cli.outlets). `final_status` turns the loss
   into an exit status; `stdout_gone` and `require_delivery` are for verbs that write for long.
"""

import json
import os
import sys
import textwrap
import traceback
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, TextIO

import typer

from schemas.errors import (
    EXIT_BUG,
    EXIT_INTERRUPTED,
    FULL_ERRNOS,
    LucidError,
    Misuse,
    Misuses,
    NoSpace,
    Unavailable,
    outcome,
)
from streams.cli.catalog import as_called
from streams.cli.outlets import outlet_of

COLUMNS = 80
INDENT = 7
"""Width of "lucid: "."""

NO_BREAK = "\x00"
"""Between the words of a command: it is not broken over two lines."""

GREEN, RED, YELLOW, DIM = "32", "31", "33", "2"

JsonFlag = Annotated[bool, typer.Option("--json", help="One JSON result on stdout.")]
YesFlag = Annotated[bool, typer.Option("--yes", help="Do not ask.")]


def styled(stream: TextIO) -> bool:
    """Whether colour and marks beyond ASCII may go to this stream."""
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return stream.isatty() and not plain and stream.encoding.lower() in ("utf-8", "utf8")


def coloured(text: str, colour: str, stream: TextIO | None = None) -> str:
    return f"\x1b[{colour}m{text}\x1b[0m" if styled(stream or sys.stdout) else text


def mark(good: bool, stream: TextIO | None = None) -> str:
    """✓ or ✗; where only ASCII is allowed: ok or NO."""
    if styled(stream or sys.stdout):
        return coloured("✓", GREEN, stream) if good else coloured("✗", RED, stream)
    return "ok" if good else "NO"


def print_result(result: Any, lines: Iterable[str], as_json: bool) -> None:
    """Write a verb's result on stdout: as one JSON object, or as its lines."""
    if as_json:
        emit(result)
    else:
        say(*lines)


def say(*lines: str) -> None:
    """Write lines of the result, on stdout."""
    for line in lines:
        sys.stdout.write(_for_stream(as_called(line), sys.stdout) + "\n")
    sys.stdout.flush()


def note(text: str) -> None:
    """Write one line beside the result, on stderr."""
    sys.stderr.write(_for_stream(as_called(text), sys.stderr) + "\n")
    sys.stderr.flush()


def emit(result: Any) -> None:
    """Write the one JSON result (or one line of NDJSON) on stdout: ASCII, so that no locale can break it."""
    sys.stdout.write(json.dumps(result, default=_as_text) + "\n")
    sys.stdout.flush()


def stdout_gone() -> bool:
    """Whether stdout takes no more: a verb that only writes may end."""
    outlet = outlet_of(sys.stdout)
    return outlet is not None and outlet.lost is not None


def require_delivery() -> None:
    """Return when stdout has taken everything. Raises NoSpace (disk.full), Unavailable (output.*)."""
    sys.stdout.flush()
    outlet = outlet_of(sys.stdout)
    if outlet is not None and outlet.lost is not None:
        if outlet.reader_gone:
            raise Unavailable(
                "standard output was closed before everything was written", code="output.closed"
            )
        raise _undelivered(outlet.lost)


def final_status(status: int) -> int:
    """The exit status after all output.

    It is the verb's, with one exception. If the verb did well and its result could not be written (a full
    disk), it is that error's. A closed stdout, or a reader that has gone, is no error.
    """
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    outlet = outlet_of(sys.stdout)
    if outlet is None or outlet.lost is None or outlet.reader_gone:
        return status
    error = _undelivered(outlet.lost)
    if status != outcome(error).exit_code:  # else the verb has reported it, or something as bad
        note(error_text(error))
    return status or outcome(error).exit_code


def _undelivered(error: OSError) -> LucidError:
    why = error.strerror or type(error).__name__
    if error.errno in FULL_ERRNOS:
        return NoSpace(f"nothing more can be written to standard output: {why}", code="disk.full")
    return Unavailable(f"standard output takes no more: {why}", code="output.failed")


def _for_stream(text: str, stream: TextIO) -> str:
    """The text as this stream can show it: our own marks have an ASCII form each."""
    if styled(stream):
        return text
    for fancy, plain in (("·", "|"), ("–", "-"), ("✓", "ok"), ("✗", "NO"), ("×", "x")):
        text = text.replace(fancy, plain)
    return text


def digits(digest: bytes | str, count: int = 16) -> str:
    """The first hex digits of a digest, in fours: 9f2c 71ab 04de 3c55."""
    text = digest if isinstance(digest, str) else digest.hex()
    return " ".join(text[at : at + 4] for at in range(0, min(count, len(text)), 4))


def key_digits(fingerprint: bytes | str) -> str:
    return digits(fingerprint, 8)


def count_of(number: int, noun: str) -> str:
    """1 chunk, 2 chunks, 3 leaves."""
    plural = {"leaf": "leaves", "is": "are"}.get(noun, noun + "s")
    return f"{number:,} {noun if number == 1 else plural}"


def short_path(path: Path) -> str:
    """The path relative to the current folder or to ~, if it lies below one of them."""
    for find, name in ((Path.cwd, "."), (Path.home, "~")):
        try:
            root = find()
        except (OSError, RuntimeError):  # the current folder was removed; the account has no home
            continue
        if path.is_relative_to(root) and path != root:
            return f"{name}/{path.relative_to(root)}"
    return str(path)


def wrapped(text: str, indent: str) -> list[str]:
    """The text in lines of 80 columns, all but the first indented. A command stays on one line."""
    lines = textwrap.wrap(
        as_called(text, NO_BREAK),
        COLUMNS,
        subsequent_indent=indent,
        replace_whitespace=False,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return [line.replace(NO_BREAK, " ") for line in lines]


def confirm(question: str, yes: bool) -> None:
    """Return when the answer is yes. Raises typer.Abort otherwise, Misuse (usage) without a terminal."""
    if yes:
        return
    if sys.stdin is None or not sys.stdin.isatty():
        raise Misuse(f"{question} Nobody can answer here", code="usage", hint="add --yes")
    typer.confirm(question, abort=True, err=True)


def problem_document(error: LucidError) -> dict[str, Any]:
    """The error as a problem document (RFC 9457)."""
    document = {
        "title": type(error).__name__,
        "status": outcome(error).http_status,
        "detail": error.message,
        "code": error.code,
    }
    extra: dict[str, Any] = {"hint": error.hint, "place": error.place}
    if isinstance(error, Misuses):
        extra["errors"] = [problem_document(one) for one in error.each]
    return document | {name: value for name, value in extra.items() if value}


def report_error(error: LucidError, as_json: bool) -> int:
    """Report the error; return its exit status."""
    if as_json:
        emit(problem_document(error))
    if not as_json or stdout_gone():
        for one in error.each if isinstance(error, Misuses) else (error,):
            note(error_text(one))
    return outcome(error).exit_code


def error_text(error: LucidError) -> str:
    """`lucid: MESSAGE; HINT  [code]`, wrapped at 80 columns under its own indentation."""
    text = f"{error.message}; {error.hint}" if error.hint else error.message
    lines, code = wrapped(f"lucid: {text}", " " * INDENT), f"[{error.code}]"
    if len(lines[-1]) + 2 + len(code) <= COLUMNS:
        return "\n".join([*lines[:-1], f"{lines[-1]}  {coloured(code, DIM, sys.stderr)}"])
    return "\n".join([*lines, " " * INDENT + coloured(code, DIM, sys.stderr)])


def report_interrupted(as_json: bool) -> int:
    """Report that the person ended it; under --json as an object, too."""
    if as_json:
        emit({"title": "Interrupted", "status": 499, "detail": "interrupted", "code": "interrupted"})
    note("lucid: interrupted")
    return EXIT_INTERRUPTED


def report_bug(error: BaseException, as_json: bool) -> int:
    """Report an error that only a bug of ours can raise, with its traceback."""
    text = f"this is a bug in lucid, not in what you did: {type(error).__name__}"
    if as_json:
        emit({"title": "Bug", "status": 500, "detail": text, "code": "bug"})
    traceback.print_exception(error, file=sys.stderr)
    note(f"lucid: {text}  [bug]")
    return EXIT_BUG


def _as_text(value: object) -> str:
    if isinstance(value, bytes):
        return value.hex()
    return str(value)
