"""The entries of the audit chain: requests, their callers and their outcomes (format.md §16).

1. An entry is one line of canonical JSON. `prev` is H of the line before, so no line can be changed, removed
   or added without a trace.
2. `asked` is durable before anything is done or shown; `outcome` follows with the same `id`. If only `asked`
   is there, the process ended in between: the thing may have been done.
3. A token, a personal field of a session or a byte of a recording never stands in an entry. `reason` is the
   caller's own text.
4. A newer writer may add members: a reader checks the line's bytes and ignores members that it does not know.
"""

import json
import re
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, ValidationError

from schemas.errors import EvidenceFalse, Rejected
from schemas.format.digest import ZERO, h
from schemas.format.jcs import DECODER, jcs, strict_loads
from schemas.types import Count, Frozen, Hex16, Hex32, TimeUs

WHO_CHARS, TEXT_CHARS, WORD_CHARS, ROLES_MOST = 200, 500, 100, 8
MAX_ENTRY_BYTES = 8192
"""More than the longest entry: 1,200 characters of free text take at most 4 bytes each."""
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff\u2028\u2029]")

Phase = Literal["asked", "outcome"]
Outcome = Literal["", "ok", "refused", "failed"]
Who = Annotated[str, StringConstraints(max_length=WHO_CHARS)]
Text = Annotated[str, StringConstraints(max_length=TEXT_CHARS)]
Word = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.:-]{0,100}$")]


def plain_text(text: str, most: int = TEXT_CHARS) -> str:
    """The text without line ends and other control characters, cut to `most` characters."""
    return _CONTROL.sub(" ", text)[:most].strip()


def plain_word(text: str) -> str:
    """The text with every character replaced that no word of an entry may have."""
    return re.sub(r"[^A-Za-z0-9_.:-]", "_", text)[:WORD_CHARS]


class Act(Frozen):
    """The members of an entry that its writer knows before it has a place in the chain."""

    id: Hex16
    """Of the request: its `asked` and its `outcome` have the same."""
    phase: Phase
    who: Who
    """Subject of the caller's token, `host:<name>`, or `local:<user>` of a command line without a token."""
    roles: Annotated[tuple[Word, ...], Field(max_length=ROLES_MOST)] = ()
    address: Word = ""
    """Network address of the caller, where one is known."""
    action: Word
    """Name of the command, or of the look: `watch`, `download`, `export`."""
    session: Word = ""
    uid: Word = ""
    """Of the session, hex; empty: none, or not known."""
    reason: Text = ""
    """The caller's, in `asked` alone."""
    request: Word = ""
    """The caller's id of the request: `cause` of a command, X-Request-Id over HTTP."""
    outcome: Outcome = ""
    """Empty in `asked`."""
    code: Word = ""
    """Of the error, if there was one."""
    detail: Text = ""


class AuditEntry(Act):
    """One entry with its place in the chain."""

    version: Literal[1] = 1
    number: Annotated[int, Field(ge=1, lt=2**53)]
    """1 for the first entry; no number is left out."""
    prev: Hex32
    """H of the entry before; zero in the first."""
    at_us: TimeUs
    """When it was written, by the writer's clock."""
    time_us: TimeUs
    """Time of the chain, which never goes back."""
    set_back_us: Count
    """Sum of all steps that clocks were set back along the chain."""


@dataclass(frozen=True, slots=True)
class Head:
    """The end of a chain."""

    number: int = 0
    digest: bytes = ZERO
    """H of the last entry; zero: there is none."""
    time_us: int = -(2**53) + 1
    set_back_us: int = 0


def read_entry(line: bytes) -> AuditEntry:
    """Return the entry in one line. Raises EvidenceFalse (audit.form): not canonical, or no entry."""
    try:
        if len(line) > MAX_ENTRY_BYTES:
            raise Rejected(f"{len(line)} bytes, allowed {MAX_ENTRY_BYTES}", code="json.form")
        return AuditEntry.model_validate(_canonical(line))
    except Rejected as error:
        why = error.message
    except ValidationError as error:
        first = error.errors()[0]
        why = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    raise EvidenceFalse(f"not an audit entry: {why[:300]}", code="audit.form")


def skim_entry(line: bytes) -> AuditEntry | None:
    """Return the entry in one line, without a judgement of its form; None: there is none."""
    try:
        return AuditEntry.model_validate_json(line)
    except ValidationError:
        return None


def _canonical(line: bytes) -> Any:
    """Return the value of a canonical line. Raises Rejected (json.*).

    Plain ASCII lines are compared with the standard encoder, whose text is the same and ten times cheaper.
    """
    if line.isascii() and b"null" not in line:
        with suppress(ValueError, RecursionError):  # strict_loads tells the fault
            value = DECODER.decode(line.decode())
            if json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode() == line:
                return value
    return strict_loads(line)


def write_entry(entry: AuditEntry) -> bytes:
    """Return the line of an entry, without a line end."""
    return jcs(entry.model_dump(mode="json"))


def head_of(line: bytes, entry: AuditEntry) -> Head:
    """Return the end of a chain that ends with this line."""
    return Head(entry.number, h(line), entry.time_us, entry.set_back_us)


def fields(entry: AuditEntry) -> dict[str, Any]:
    """Return the members of an entry as JSON has them."""
    return entry.model_dump(mode="json")
