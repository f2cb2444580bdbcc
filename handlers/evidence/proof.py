"""Says when a session was last proven by the scrub, and checks fragments against their rows. Pure.

1. A pass proves a session only without an open alarm, and if its log has no event that came after the list.
2. The time is that of the last mark at or before the session: its check began then or later.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from handlers.lifecycle.session import Session
from schemas.errors import EvidenceFalse, Rejected
from schemas.events.chunk import Recorded
from schemas.events.scrub import Mark, Pass, ScrubState
from schemas.format.digest import h
from schemas.format.fragment import head, parse
from schemas.format.index import fragment_rows
from schemas.format.manifest import Manifest
from schemas.ports.messages import Message

MISSING, ALTERED = "source.missing", "source.altered"


class SealedLog(NamedTuple):
    """The log of one sealed session: its first and last stream sequence."""

    session: str
    first_seq: int
    last_seq: int


def proven_us(state: ScrubState, session: Session) -> int:
    """Return when the scrub last began a check of this sealed session that found it true; 0: never."""
    if not session.sealed or session.destroy is not None:
        return 0
    return proven_log_us(state, SealedLog(session.id, session.first_seq, session.last_seq))


def proven_log_us(state: ScrubState, sealed: SealedLog) -> int:
    """As `proven_us`, of a session that is sealed and not destroyed."""
    if any(one.session == sealed.session for one in state.alarms):
        return 0
    for one, reached in ((state.current, state.place.number), (state.last, None)):
        if one is not None and (found := _proven_in(one, reached, sealed)):
            return found
    return 0


def _proven_in(one: Pass, reached: int | None, sealed: SealedLog) -> int:
    """reached: the last session that the pass has checked; None: the pass has ended."""
    beyond = reached is not None and sealed.first_seq > reached
    if one.failed_more or sealed.session in one.failed or beyond:
        return 0
    mark = max((mark for mark in one.marks if mark.number <= sealed.first_seq), key=_number, default=None)
    return mark.at_us if mark is not None and sealed.last_seq <= mark.position else 0


def _number(mark: Mark) -> int:
    return mark.number


def check_history(manifest: Manifest, lines: Sequence[bytes]) -> None:
    """Return if the log holds the events that were sealed. Raises EvidenceFalse (history.digest)."""
    sealed = lines[: manifest.lifecycle.last]
    if h(b"".join(line + b"\n" for line in sealed)) != manifest.lifecycle.digest:
        raise EvidenceFalse(
            f"the log of {manifest.session} is not the one that was sealed", code="history.digest"
        )


def check_fragments(
    recorded: Recorded, seqs: Sequence[int], found: Mapping[int, Message]
) -> list[tuple[int, str]]:
    """Return the stream sequence and code of each fragment that is not the one that was recorded.

    The rows of a chunk give every header, digest and signature again: format.md §8.
    """
    previous, bad = recorded.prev_head, []
    rows = fragment_rows(recorded.rows)
    for number, (seq, row) in enumerate(zip(seqs, rows, strict=True), recorded.first_seq):
        raw = row.header(recorded.uid, recorded.track, recorded.part, number, previous).pack()
        previous = head(raw, row.body_digest)
        message = found.get(seq)
        if message is None:
            bad.append((seq, MISSING))
            continue
        try:
            fragment = parse(message.data)
        except Rejected:
            bad.append((seq, ALTERED))
            continue
        same = (fragment.raw_header, fragment.body_digest, fragment.signature)
        if same != (raw, row.body_digest, row.signature):
            bad.append((seq, ALTERED))
    return bad
