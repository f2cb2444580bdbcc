"""Knows when each host was last heard, and up to when all that its recording holds was looked at.

1. A host is heard when the stage `record` takes a fragment that its key signed. What others send under its
   name, what is refused and what is sent again is no sign of life.
2. A host is silent as far as was looked at: fragments that nobody folded yet may be its own. So while workers
   are down, behind or busy, no host is silent; a flood that never ends delays this, and cannot prevent it.
3. The workers are asked (`lucid.heard.<p>`); nothing is stored. Times are the server's, brought to our clock.
4. After a start, and after a time in which nobody listened, every host counts as heard now, once.
"""

import asyncio
import json
import logging
from collections.abc import Iterable
from dataclasses import dataclass

from handlers.lifecycle.next_action import FILLING
from handlers.lifecycle.session import Session
from schemas import subjects
from schemas.errors import LucidError
from schemas.events.session import State
from schemas.ports import Jet

ANSWER_S = 5.0
"""All are asked at once: one worker that hangs makes nobody deaf."""
QUIET_S = 15.0
"""A host that was not heard for so long is looked after: one that is idle sends a tick every 10 s."""
DEAF_S = 45.0
"""Without listening for so long, nobody knows what hosts did meanwhile."""

log = logging.getLogger("lucid.hearing")


@dataclass(slots=True)
class _Host:
    """What is known of one session's host."""

    heard_us: int = 0
    heard_server_us: int = 0
    """The same by the server's clock: it is brought to ours once, whatever becomes of either clock."""
    looked_us: int = 0
    mark: tuple[int, int] | None = None
    """When its recording was asked for its last fragment, and that one's stream sequence."""


class HostActivity:
    """What this process has heard since `began_us`."""

    def __init__(self, jet: Jet, began_us: int) -> None:
        self._jet, self._began_us = jet, began_us
        self._listened_us = began_us
        self._hosts: dict[str, _Host] = {}

    async def listen(self, now_us: int, sessions: Iterable[Session]) -> None:
        """Learn how far the recordings of these sessions were looked at, and whose host was heard.

        Raises Unavailable.
        """
        live = [session for session in sessions if session.created is not None]
        self._hosts = {session.id: self._hosts.get(session.id) or _Host() for session in live}
        ahead_us = now_us - ((await self._jet.info(subjects.RECORDINGS)).now_us or now_us)
        if now_us - self._listened_us > DEAF_S * 1e6:
            self._began_us = now_us
        self._listened_us = now_us
        for session in live:
            await self._mark(session, now_us)
        partitions = {subjects.partition(session.id) for session in live}
        for told in await asyncio.gather(*map(self._ask, partitions)):
            for name, (position, heard_us) in told.items():
                if name in self._hosts:
                    _learn(self._hosts[name], position, heard_us, ahead_us)

    def heard_us(self, session: Session) -> int:
        """When the session's host was last heard; 0: not since this process listens, and it was silent."""
        host = self._hosts.get(session.id)
        heard_us = host.heard_us if host else 0
        return heard_us if session.state == State.ERROR else max(heard_us, self._began_us)

    def looked_us(self, session: Session) -> int:
        """Up to when all that its recording holds was looked at; 0: nobody knows."""
        host = self._hosts.get(session.id)
        return host.looked_us if host else 0

    async def _mark(self, session: Session, now_us: int) -> None:
        """Note what a quiet host's recording ends with: when that was looked at, so was all up to now."""
        host = self._hosts[session.id]
        if session.state in FILLING and host.mark is None and now_us - self.heard_us(session) > QUIET_S * 1e6:
            assert session.created is not None
            recording = subjects.recording(session.created.host, session.id)
            last = await self._jet.last(subjects.RECORDINGS, recording)
            host.mark = (now_us, last.seq if last else 0)

    async def _ask(self, p: int) -> dict[str, tuple[int, int]]:
        """Position and time heard, by session; empty when no worker answers."""
        try:
            told: dict[str, tuple[int, int]] = json.loads(
                await self._jet.request(subjects.heard(p), b"", ANSWER_S)
            )
        except (LucidError, ValueError, TimeoutError) as error:
            log.info("no_worker_answers partition=%d error=%s", p, error)
            return {}
        return told


def _learn(host: _Host, position: int, heard_us: int, ahead_us: int) -> None:
    if heard_us > host.heard_server_us:
        host.heard_server_us, host.heard_us = heard_us, heard_us + ahead_us
    if host.mark is not None and position >= host.mark[1]:
        host.looked_us, host.mark = host.mark[0], None
