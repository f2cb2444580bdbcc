"""Keeps the fragments of open chunks within a budget of memory: the rest is in overflow files, or dropped.

1. Over the budget a whole open chunk goes to a file of its own. The chunk that began last, or got its first
   bytes in memory last, goes first. A host with more than its share of the budget gives one of its own.
2. If the file is refused, a whole open chunk is dropped, and its later fragments are not kept. A chunk that
   misses one fragment must read all of them again anyway. If the files are full, the host with most bytes in
   them drops one of its own, if it has more than its share of them; else the chunk of rule 1 is dropped.
3. A fragment that leaves its chunk alone stays in the file until the chunk closes, and counts as its host's.
"""

import asyncio
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from schemas.format.fragment import Fragment
from schemas.ports import Overflow, OverflowFile
from streams.pipeline.spilled_fragments import Kept, Spilled, bytes_held, spilled

HOST_SHARE = 4
"""One host's open chunks may fill one part of so many of a budget that is used up: a quarter."""


@dataclass(slots=True)
class _Open:
    """Data fragments of one session in no closed chunk, by stream sequence."""

    host: str
    bytes_held: int = 0
    """In memory."""
    fragments: dict[int, Kept] = field(default_factory=dict)
    file: OverflowFile | None = None
    file_bytes: int = 0
    dropped: bool = False
    touched_s: float = 0.0


class OpenChunks:
    """The open chunks of all sessions, for one event loop. Their owner keeps the budget by `shrink`."""

    def __init__(self, record_bytes: int, overflow: Overflow | None) -> None:
        self.bytes_held = 0
        self._limit, self._overflow = record_bytes, overflow
        self._open: dict[bytes, _Open] = {}
        self._kept: dict[bytes, _Open] = {}
        """Those with bytes in memory, in the order in which they got their first ones."""
        self._away: dict[bytes, _Open] = {}
        """Those with bytes in a file, in the order in which they got their first ones."""
        self._held_of_host: Counter[str] = Counter()
        self._away_of_host: Counter[str] = Counter()
        self._is_short = False
        """A chunk was dropped since idle chunks were evicted."""

    def add(self, uid: bytes, host: str, stream_seq: int, fragment: Fragment) -> None:
        session = self._open.get(uid)
        if session is None:
            session = self._open[uid] = _Open(host)
        if session.dropped or stream_seq in session.fragments:
            return
        session.fragments[stream_seq] = fragment
        session.touched_s = now_s()
        self._hold(uid, session, len(fragment.body))

    def shrink(self, most: int, host: str) -> None:
        """Spill or drop chunks until at most so many bytes are in memory. host: of the newest fragment."""
        while self._kept and self.bytes_held > most:
            uid = self._last_begun(host)
            if not self._spill(uid):
                self._drop(self._greediest() or uid)

    def take(self, uid: bytes, stream_seqs: Iterable[int]) -> list[Kept] | None:
        """Take out a closed chunk's fragments, in this order; None: some are missing."""
        session = self._open.get(uid)
        found = [self.release(uid, seq) for seq in stream_seqs]
        if session is not None:
            if any(isinstance(kept, Spilled) for kept in session.fragments.values()):
                self._drop(uid)  # early fragments of the next chunk would keep this chunk's file
            else:
                self._end_file(uid, session)
                session.dropped = False
            if session.bytes_held:
                self._kept[uid] = self._kept.pop(uid)  # its next chunk begins now
            elif not session.dropped:
                del self._open[uid]
        fragments = [kept for kept in found if kept is not None]
        return fragments if len(fragments) == len(found) else None

    def release(self, uid: bytes, stream_seq: int) -> Kept | None:
        """Take out one fragment."""
        session = self._open.get(uid)
        kept = session.fragments.pop(stream_seq, None) if session else None
        if session is not None and kept is not None:
            self._hold(uid, session, -bytes_held(kept))
        return kept

    def forget(self, uid: bytes) -> None:
        """Drop the fragments of a session, as if it had never had any."""
        if uid in self._open:
            self._clear(uid, self._open.pop(uid))

    def evict(self, idle_since_s: float) -> None:
        """Drop the chunks that were not touched since then, if others were dropped for them."""
        if self._is_short:
            idle = [uid for uid, one in self._open.items() if one.fragments and one.touched_s <= idle_since_s]
            for uid in idle:
                self._drop(uid)
        self._is_short = False

    def _last_begun(self, host: str) -> bytes:
        """The session whose open chunk began last; one of this host, if the host has more than its share."""
        greedy = self._held_of_host[host] * HOST_SHARE > self._limit
        return next(
            uid for uid, session in reversed(self._kept.items()) if not greedy or session.host == host
        )

    def _greediest(self) -> bytes | None:
        """The last session with a file, of the host that has most bytes in them; None: no host is greedy."""
        if self._overflow is None or not self._overflow.is_full or not self._away_of_host:
            return None
        host, size = max(self._away_of_host.items(), key=lambda item: item[1])
        if size * HOST_SHARE <= self._overflow.used_bytes:
            return None
        return next(uid for uid, session in reversed(self._away.items()) if session.host == host)

    def _spill(self, uid: bytes) -> bool:
        """Write a session's fragments to its file; False: some are refused, and stay in memory."""
        session = self._kept[uid]
        if session.file is None:
            session.file = self._overflow.open() if self._overflow else None
        if session.file is None:
            return False
        for seq, kept in session.fragments.items():
            if isinstance(kept, Spilled):
                continue
            away = spilled(kept, session.file)
            if away is None:
                return False
            session.fragments[seq] = away
            self._hold(uid, session, -away.size)
            session.file_bytes += away.size
            self._away_of_host[session.host] += away.size
            self._away.setdefault(uid, session)
        return True

    def _drop(self, uid: bytes) -> None:
        session = self._open[uid]
        self._clear(uid, session)
        session.dropped = self._is_short = True

    def _clear(self, uid: bytes, session: _Open) -> None:
        session.fragments.clear()
        self._hold(uid, session, -session.bytes_held)
        self._end_file(uid, session)

    def _end_file(self, uid: bytes, session: _Open) -> None:
        """From now on a closed chunk has the file, or nobody."""
        self._away_of_host[session.host] -= session.file_bytes
        if not self._away_of_host[session.host]:
            del self._away_of_host[session.host]
        self._away.pop(uid, None)
        session.file, session.file_bytes = None, 0

    def _hold(self, uid: bytes, session: _Open, size: int) -> None:
        """Count bytes of a session in memory; fewer if `size` is negative."""
        session.bytes_held += size
        self.bytes_held += size
        self._held_of_host[session.host] += size
        if not self._held_of_host[session.host]:
            del self._held_of_host[session.host]
        if session.bytes_held:
            self._kept.setdefault(uid, session)
        else:
            self._kept.pop(uid, None)


def now_s() -> float:
    return asyncio.get_running_loop().time()
