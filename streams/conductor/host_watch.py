"""Watches hosts for silence, and ends recordings in place of hosts that do not.

Silence:
1. A host is heard when the stage `record` takes a fragment that its key signed. Fragments of others under its
   name, refused fragments and repeated ones are no sign of life.
2. A host is silent only up to the fragment that was folded last: later ones may be its own. So no host is
   silent while workers are down, behind or busy. A flood without end delays this, and cannot prevent it.
3. The workers are asked (`lucid.heard.<p>`); nothing is stored. The server's times are converted to ours.
4. After a start, and after a time without listening, every host counts as heard now, once. Each shard has
   its own clock and its own times: one that does not answer makes no host of another unheard.

The platform's end, an `end` fragment:
5. Everything before it in the stream is recorded, nothing after it: no host can prevent that.
6. It names no tracks: only the fold of `record` knows the fragments before it, and reports them in `ended`.
   From that the seal makes the `end` of the manifest (handlers/seal/manifest.py).
7. A host that hears of the request sends its fragments under way, and stops; any other host is cut off.
8. Its time is that of the request: every sender makes the same bytes, at any time, however often.
"""

import asyncio
import json
from collections.abc import Iterable
from dataclasses import dataclass

from handlers.format.fragment import end_fragment
from handlers.lifecycle.next_action import FILLING
from handlers.lifecycle.session import Session
from handlers.lifecycle.stage_progress import Sample
from schemas import subjects
from schemas.config.logs import logger
from schemas.errors import LucidError, NotFound, Retryable
from schemas.events.session import EndRequested, State
from schemas.ports import Signers
from streams.event_store.recordings import Recordings

ANSWER_S = 5.0
"""All workers are asked at once: one that hangs delays no answer of another."""
QUIET_S = 15.0
"""A host that was not heard for so long is examined: an idle one sends a tick every 10 s."""
DEAF_S = 45.0
"""After so long without listening, nothing is known of the hosts."""

REST_S = 0.2
"""A host that sends nothing for so long has sent all that was under way."""
GRACE_S = 2.0
"""How long a host may take for the fragments under way."""

log = logger("lucid.conductor")


@dataclass(slots=True)
class _Host:
    """One session's host, as far as it is known."""

    heard_us: int = 0
    heard_server_us: int = 0
    """The same by the server's clock. It is converted once: either clock may be set later."""
    looked_us: int = 0
    mark: tuple[int, int] | None = None
    """When the last fragment of its recording was looked up, and the stream sequence of that fragment."""
    last_seq: int = 0
    """Stream sequence of the last fragment, while the stream itself ends at `stream_seq`."""
    stream_seq: int = -1
    position: int = 0
    """Stream sequence of the last fragment that was folded, as far as a worker told."""


@dataclass(slots=True)
class _Shard:
    """One recording stream, as far as it is known."""

    began_us: int
    """Its hosts count as heard then."""
    listened_us: int
    ahead_us: int = 0
    """How far our clock is ahead of the server that stamps its messages: each stream may have another one."""
    last_seq: int = 0


class HostActivity:
    """When this process last heard each host, since `began_us`."""

    def __init__(self, recordings: Recordings, began_us: int) -> None:
        self._recordings = recordings
        self._shards = {stream: _Shard(began_us, began_us) for stream in recordings.streams}
        self._hosts: dict[str, _Host] = {}

    async def listen(self, now_us: int, sessions: Iterable[Session]) -> None:
        """Learn how far the recordings of these sessions were folded, and when their hosts were heard.

        Of a shard that does not answer nothing is learnt. Raises Unavailable: no shard answers.
        """
        live = [session for session in sessions if session.created is not None]
        self._hosts = {session.id: self._hosts.get(session.id) or _Host() for session in live}
        asked = await asyncio.gather(*(self._look(stream, now_us) for stream in self._shards))
        errors = {stream: error for stream, error in zip(self._shards, asked, strict=True) if error}
        for stream, error in errors.items():
            log.warning("shard_unheard", stream=stream, error=error)
        if len(errors) == len(self._shards):
            raise next(iter(errors.values()))
        heard = {session.id: session for session in live if self._stream_of(session) not in errors}
        for session in heard.values():
            await self._mark(session, now_us)
        partitions = {subjects.partition(name) for name in heard}
        for answer in await asyncio.gather(*map(self._ask, partitions)):
            for name, (position, heard_us) in answer.items():
                if name in heard:
                    ahead_us = self._shards[self._stream_of(heard[name])].ahead_us
                    _learn(self._hosts[name], position, heard_us, ahead_us)

    def heard_us(self, session: Session) -> int:
        """When the session's host was last heard; 0: it was silent before, and not heard since."""
        host = self._hosts.get(session.id)
        heard_us = host.heard_us if host else 0
        began_us = self._shards[self._stream_of(session)].began_us
        return heard_us if session.state == State.ERROR else max(heard_us, began_us)

    def looked_us(self, session: Session) -> int:
        """Everything that the recording held at this time was folded; 0: not known."""
        host = self._hosts.get(session.id)
        return host.looked_us if host else 0

    def recorded(self, sessions: Iterable[Session], now_us: int) -> dict[str, Sample]:
        """By session: whether fragments wait to be folded, and how far the recording is folded.

        It is learnt by `listen`; of a shard that was not heard for DEAF_S nothing is told. A paused pipeline
        leaves its fragments in the stream: none of them waits.
        """
        hosts = {
            session.id: self._hosts[session.id]
            for session in sessions
            if session.id in self._hosts
            and not session.pipeline_paused
            and now_us - self._shards[self._stream_of(session)].listened_us <= DEAF_S * 1e6
        }
        return {name: Sample(host.mark is not None, (host.position,)) for name, host in hosts.items()}

    def _stream_of(self, session: Session) -> str:
        return self._recordings.stream_of(session.id)

    async def _look(self, stream: str, now_us: int) -> LucidError | None:
        """Note the end and the clock of one stream; the error, if it cannot be asked."""
        try:
            info = await self._recordings.info(stream)
        except (Retryable, NotFound) as error:  # NotFound: somebody deleted it
            return error
        shard = self._shards[stream]
        shard.last_seq, shard.ahead_us = info.last_seq, now_us - (info.now_us or now_us)
        if now_us - shard.listened_us > DEAF_S * 1e6:
            shard.began_us = now_us
        shard.listened_us = now_us
        return None

    async def _mark(self, session: Session, now_us: int) -> None:
        """Note the last fragment of a quiet host: once it is folded, all up to now was folded.

        While its stream stands still, no fragment is looked up again.
        """
        host, stream_seq = self._hosts[session.id], self._shards[self._stream_of(session)].last_seq
        if session.state in FILLING and host.mark is None and now_us - self.heard_us(session) > QUIET_S * 1e6:
            assert session.created is not None
            recording = subjects.recording(session.created.host, session.id)
            if host.stream_seq != stream_seq:
                last = await self._recordings.last(recording)
                host.last_seq, host.stream_seq = last.seq if last else 0, stream_seq
            host.mark = (now_us, host.last_seq)

    async def _ask(self, p: int) -> dict[str, tuple[int, int]]:
        """Position and time heard, by session; empty when no worker answers."""
        try:
            answer: dict[str, tuple[int, int]] = json.loads(
                await self._recordings.jet.request(subjects.host_activity(p), b"", ANSWER_S)
            )
        except (LucidError, ValueError, TimeoutError) as error:
            log.info("no_worker_answers", partition=p, error=error)
            return {}
        return answer


def _learn(host: _Host, position: int, heard_us: int, ahead_us: int) -> None:
    if heard_us > host.heard_server_us:
        host.heard_server_us, host.heard_us = heard_us, heard_us + ahead_us
    host.position = max(host.position, position)
    if host.mark is not None and position >= host.mark[1]:
        host.looked_us, host.mark = host.mark[0], None


async def send_end(recordings: Recordings, session: Session, request: EndRequested, signers: Signers) -> None:
    """End the recording as the request says, once its host sends nothing, at latest after GRACE_S.

    Safe to repeat.
    """
    created, clock = session.created, asyncio.get_running_loop().time
    assert created is not None
    subject = subjects.recording(created.host, session.id)
    signer = await asyncio.to_thread(signers.at, request.at_us)
    end = end_fragment(created.uid, request.end, request.reason, (), request.at_us, signer)
    latest_s = clock() + GRACE_S
    last = await recordings.last(subject)
    while clock() < latest_s:
        await asyncio.sleep(REST_S)
        before, last = last, await recordings.last(subject)
        if before == last:
            break
    if last is not None and last.data == end:
        return  # its answer was lost
    await recordings.jet.publish(subject, end)
    log.info("end_sent", session=session.id, end=request.end, reason=request.reason)
