"""Divides the space of one recording stream, a shard: which source is purged, and how much a host may send.

    0 ── keep by age ── 70 % ── oldest seals go, then stored prefixes ── 95 % ── markers only ── 100 %

1. Before the seal only the source of the first stored chunks is purged. During a seal nothing is purged.
2. A legal hold keeps evidence, not its source: the source is a second copy of the sealed data.
3. Data stops below the limit, so that ticks, gaps and endings always fit: every session can end.
4. Level-triggered and pure: the same input gives the same answer.
"""

from collections.abc import Mapping

from handlers.lifecycle.rules import RUNNING
from handlers.lifecycle.session import Session

PURGE_ABOVE = 0.70
DATA_BELOW = 0.95
ASK_BYTES = 64 << 20
"""Greatest send quota of one session."""
OVERSHOOT = 0.5
"""Part of the space above DATA_BELOW that all unused quotas together may take."""


def may_purge(session: Session) -> bool:
    """Whether the source of a sealed session may be purged after its evidence was read back."""
    ordered = session.destroy is not None or session.shredded is not None
    return session.sealed and session.seal_started is None and not ordered


def may_release(session: Session) -> bool:
    """Whether the source of the first chunks of a running session may be purged."""
    return session.state in RUNNING and not (session.sealed or session.seal_started or session.destroy)


def is_filling(used: int, limit: int) -> bool:
    """Whether the recording stream needs a purge. used, limit: bytes; limit ≤ 0: there is none."""
    return used > PURGE_ABOVE * limit > 0


def next_to_purge(
    sealed: Mapping[str, int], now_us: int, retention_s: float, used: int, limit: int
) -> str | None:
    """Return the session that was sealed first, if its retention is over or the stream fills up; else None.

    sealed: time of the seal by name, µs, of sessions that `may_purge`. used, limit: as in `is_filling`.
    """
    oldest = min(sealed, key=lambda name: (sealed[name], name), default=None)
    if oldest is None:
        return None
    due = now_us - sealed[oldest] >= retention_s * 1e6
    return oldest if due or is_filling(used, limit) else None


def send_quota_bytes(used: int, limit: int, sessions: int) -> int:
    """Return the bytes of data that one session may send before it asks again; 0: none now.

    sessions: how many may send. Each one's quota is a fixed part of the space above DATA_BELOW. Together they
    leave the rest of that space free, whenever each of them asked.
    """
    if limit <= 0:
        return ASK_BYTES
    part = int((1 - DATA_BELOW) * OVERSHOOT * limit) // max(sessions, 1)
    return max(0, min(ASK_BYTES, part, int(DATA_BELOW * limit) - used))
