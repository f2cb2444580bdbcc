"""Owns what becomes of the recording stream's space: whose source goes, and how much data may still come.

    0 ── keep by age ── 70 % ── oldest seals go, then stored prefixes ── 95 % ── markers only ── 100 %

1. Of a session that is not sealed the source goes only where its chunks are stored from the first one on; of
   one that is being sealed, or sealed again, nothing.
2. A legal hold keeps evidence, not its source: the source is a second copy of what is sealed.
3. Data stops below the top, so that ticks, gaps and endings always fit: every session can end.
4. Level-triggered and pure: whoever asks twice is told the same.
"""

from collections.abc import Mapping

from handlers.lifecycle.rules import RUNNING
from handlers.lifecycle.session import Session

PURGE_ABOVE = 0.70
DATA_BELOW = 0.95
ASK_BYTES = 64 << 20
"""The most that one session may send before it asks again."""
OVERSHOOT = 0.5
"""Of the space above DATA_BELOW, what all allowances together may take that are given and not yet used."""


def may_go(session: Session) -> bool:
    """Whether the session's source may be purged at all, once its evidence was read back."""
    ordered = session.destroy is not None or session.shredded is not None
    return session.sealed and session.seal_started is None and not ordered


def may_release(session: Session) -> bool:
    """Whether the source of the session's first chunks may go, while it still runs."""
    return session.state in RUNNING and not (session.sealed or session.seal_started or session.destroy)


def is_filling(used: int, limit: int) -> bool:
    """Whether the recording stream is to be made emptier. Bytes; a limit of 0 or less: none."""
    return used > PURGE_ABOVE * limit > 0


def next_to_purge(
    sealed: Mapping[str, int], now_us: int, retention_s: float, used: int, limit: int
) -> str | None:
    """Of sessions that `may_go`, the one sealed first, if its time has come or the stream fills up.

    sealed: time of the seal by name. used, limit: bytes of the recording stream; a limit of 0 or less: none.
    """
    oldest = min(sealed, key=lambda name: (sealed[name], name), default=None)
    if oldest is None:
        return None
    due = now_us - sealed[oldest] >= retention_s * 1e6
    return oldest if due or is_filling(used, limit) else None


def send_quota_bytes(used: int, limit: int, sessions: int) -> int:
    """How many bytes of data one session may send before it asks again; 0: none now.

    sessions: how many may send. Each has at most its part of the space above DATA_BELOW in hand, so that
    together they stay out of the rest of it, whenever each of them asked.
    """
    if limit <= 0:
        return ASK_BYTES
    part = int((1 - DATA_BELOW) * OVERSHOOT * limit) // max(sessions, 1)
    return max(0, min(ASK_BYTES, part, int(DATA_BELOW * limit) - used))
