"""The state of the scrub, as its file in the data folder holds it.

1. A session's number is the stream sequence of its Created: passes go through sealed sessions in this order.
2. A mark holds for the sessions from its number on with a log that ended at `position` or before. Their
   checks began at the mark's time or later.
"""

from typing import Literal

from pydantic import Field

from schemas.types import Count, Frozen, TimeUs

FINDINGS_KEPT = 200
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


class Place(Frozen):
    """Where a pass stands. number: of the last session that was checked to its end."""

    number: Count = 0
    session: str = ""
    """The session that is being checked; empty: none was begun."""
    seal_no: Count = 0
    index: Count = 0
    """Files of that session's newest seal that were checked, in the order of the manifest."""


class ScrubState(Frozen):
    """The whole state. last: the newest pass that ended."""

    version: Literal[1] = 1
    current: Pass = Pass()
    place: Place = Place()
    last: Pass | None = None
    findings: tuple[Finding, ...] = ()
    """The newest ones, the oldest first."""
