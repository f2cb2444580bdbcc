"""The state of the scrub, as its file in the data folder holds it.

1. A session's number is the stream sequence of its Created: passes go through sealed sessions in this order.
2. A mark holds for the sessions from its number on with a log that ended at `position` or before. Their
   checks began at the mark's time or later.
3. An alarm stays until its place was found good, or repaired, or the session is destroyed. An acknowledged
   alarm makes no sound. It stays listed until a whole pass no longer finds the damage.
4. The file is a line of JSON and H of that line. A file of before has no digest.
"""

from typing import Literal

from pydantic import Field, ValidationError

from schemas.errors import EvidenceFalse
from schemas.format.digest import h
from schemas.types import Count, Frozen, TimeUs

FINDINGS_KEPT = 200
ALARMS_MOST = 1000
"""Places that are remembered as damaged. More are counted only."""
RUNNING_MOST = 10_000
"""Sessions without a seal that one pass remembers."""
FAILED_MOST = 1000
"""Sessions with a finding in one pass that are remembered by name."""
MARKS_MOST = 1000

Outcome = Literal["repaired", "alarm"]


class Finding(Frozen):
    """One thing that was not as it was sealed. place: such as `chunk 3`; code: the error."""

    at_us: TimeUs
    session: str
    place: str
    code: str
    text: str
    outcome: Outcome


class Alarm(Frozen):
    """A place that is damaged now. session: empty for a stream; at_us: when it was found last."""

    session: str
    place: str
    code: str
    text: str
    since_us: TimeUs
    at_us: TimeUs
    number: Count = 0
    """Of the pass that found it last."""
    acknowledged_us: TimeUs = 0
    """When a person took note of it; 0: nobody did."""
    acknowledged_by: str = ""
    repairing: bool = False
    """A repair has begun: a kill in the middle leaves this, and the next check says how it ended."""
    noted: bool = False
    """It is in the audit chain."""


class Mark(Frozen):
    number: Count
    position: Count
    at_us: TimeUs


class Pass(Frozen):
    """One pass through everything. ended_us 0: it goes on, or was broken off."""

    number: Count = 0
    began_us: TimeUs = 0
    ended_us: TimeUs = 0
    sessions: Count = 0
    """Sealed and running sessions that were checked to their end."""
    chunks: Count = 0
    fragments: Count = 0
    bytes: Count = 0
    messages: Count = 0
    """Messages of the other streams that were read."""
    cpu_us: Count = 0
    busy_us: Count = 0
    """Time without the pauses of the rate."""
    waited_us: Count = 0
    """Time that the pass gave way to the pipeline."""
    repaired: Count = 0
    alarms: Count = 0
    marks: tuple[Mark, ...] = ()
    failed: dict[str, str] = Field(default_factory=dict)
    """Sessions with an alarm: name → code."""
    failed_more: bool = False
    """There are more than FAILED_MOST: the pass proves nothing of any session."""
    alarms_more: bool = False
    """It found more than ALARMS_MOST places."""
    running: tuple[str, ...] = ()
    """Sessions that had no seal at its begin, and were not checked since."""


class Place(Frozen):
    """Where a pass stands. number: of the last session that was checked to its end."""

    number: Count = 0
    session: str = ""
    """The session that is being checked; empty: none was begun."""
    seal_no: Count = 0
    index: Count = 0
    """Files of that session's newest seal that were checked, in the order of the manifest."""
    source: Count = 0
    """The source of its chunks below this one was checked."""
    streams: tuple[str, ...] = ()
    """Streams that were read to their end."""


class ChainMark(Frozen):
    """An entry of the audit chain that a pass has read. digest: hex; number 0: none."""

    number: Count = 0
    digest: str = ""


class ScrubState(Frozen):
    """The whole state. last: the newest pass that ended."""

    version: Literal[1] = 1
    current: Pass = Pass()
    place: Place = Place()
    last: Pass | None = None
    first_us: TimeUs = 0
    """When the scrub was started here for the first time; 0: unknown."""
    findings: tuple[Finding, ...] = ()
    """The newest ones, the oldest first."""
    alarms: tuple[Alarm, ...] = ()
    alarms_more: bool = False
    """There are more than ALARMS_MOST, by the pass that found them."""
    ends: dict[str, Count] = Field(default_factory=dict)
    """The last sequence that each stream was seen to have: it never falls."""
    end_times: dict[str, TimeUs] = Field(default_factory=dict)
    """The server's time of the message with that sequence; 0 or absent: unknown."""
    chain: ChainMark = ChainMark()


def write_state(state: ScrubState) -> bytes:
    """Return the bytes of the file."""
    line = state.model_dump_json().encode()
    return line + b"\n" + h(line).hex().encode() + b"\n"


def read_state(raw: bytes) -> ScrubState:
    """Return the state in a file. Raises EvidenceFalse (scrub.damaged)."""
    line, _, digest = raw.partition(b"\n")
    if digest and digest.strip() != h(line).hex().encode():
        raise EvidenceFalse("the state of the scrub is not what was written", code="scrub.damaged")
    try:
        return ScrubState.model_validate_json(line)
    except ValidationError as error:
        why = error.errors()[0]["msg"]
        raise EvidenceFalse(f"the state of the scrub cannot be read: {why}", code="scrub.damaged") from None
