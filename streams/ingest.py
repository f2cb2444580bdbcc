"""Owns the stage `record`: one reader over the partitions of this worker, one Recording for each session.

1. The reader acknowledges nothing. Where it stands is not remembered: on start the stream's last sequence
   is noted, open sessions are brought up to it on their own subjects, and the reader follows from there.
2. A session that is not known yet leaves its fragments in the stream; when it appears, it catches up.
3. Fragments of a session that is being cleaned up or is destroyed are dropped.
"""

import asyncio
import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import suppress

from handlers.session import Session
from handlers.stages.record import Identity
from infra.jetstream import Jet
from schemas import subjects
from schemas.fragment import EVENTS, MAIN, genesis
from schemas.jetstream import Discontinuity, Message
from schemas.lifecycle_events import Created, State
from streams.claims import Claims
from streams.directory import Directory
from streams.recording import Arrival, Held, Recording

BATCH_MESSAGES = 64
BATCH_BYTES = 4 << 20
"""What is looked at in one thread job."""
AHEAD = 3
"""Batches that are looked at while an earlier one is folded."""
OPENING_AT_ONCE = 8

log = logging.getLogger("lucid.ingest")


class Ingest:
    """Runs `record` over some partitions until cancelled."""

    def __init__(
        self,
        jet: Jet,
        directory: Directory,
        claims: Claims,
        threads: Executor,
        signers: Callable[[], Sequence[bytes]],
        partitions: Collection[int],
    ) -> None:
        self._jet, self._directory, self._claims, self._threads = jet, directory, claims, threads
        self._signers, self._partitions = signers, partitions
        self._recordings: dict[str, Recording] = {}
        self._held = Held()
        self._unknown: dict[str, int] = {}
        """Sessions that are not known yet, with the last stream sequence that was seen of each."""
        self._started_at = 0
        self._looks: asyncio.Queue[asyncio.Future[list[tuple[Recording, list[Arrival]]]]]
        self._looks = asyncio.Queue(AHEAD)

    async def run(self) -> None:
        await self._directory.ready()
        self._started_at = (await self._jet.info(subjects.RECORDINGS)).last_seq
        self._directory.on_change(self._changed)
        for session in self._directory.sessions():
            self._changed(session)
        folding = asyncio.create_task(self._fold_all())
        try:
            await self._read_all(folding)
        finally:
            folding.cancel()
            with suppress(asyncio.CancelledError):
                await folding
            for recording in list(self._recordings.values()):
                await recording.close()

    # the sessions

    def _changed(self, session: Session) -> None:
        """A session's log grew: take it up, or let it go."""
        if subjects.partition(session.id) not in self._partitions:
            return
        if session.state in (State.CLEANUP, State.DESTROYED):
            recording = self._recordings.pop(session.id, None)
            if recording is not None:
                asyncio.get_running_loop().create_task(recording.close())
            return
        recording = self._recordings.get(session.id)
        if session.sealed:
            if recording is not None and recording.done:
                del self._recordings[session.id]
            return
        if recording is None and session.intake:
            self._open(session, self._unknown.pop(session.id, 0))

    def _open(self, session: Session, up_to: int) -> None:
        if session.created is None:
            return
        recording = Recording(
            self._jet,
            self._claims,
            self._threads,
            identity_of(session.created, session.intake),
            session.created.host_key,
            self._signers,
            self._held,
        )
        self._recordings[session.id] = recording
        recording.catch_up(max(up_to, self._started_at))

    # the reader

    async def _read_all(self, folding: "asyncio.Task[None]") -> None:
        filters = [subjects.recording_filter(p) for p in sorted(self._partitions)]
        follower = self._jet.follow(subjects.RECORDINGS, filters, self._started_at + 1)
        try:
            while items := await follower.batch():
                for batch in _batches(items):
                    await self._look(batch)
                    if folding.done():
                        folding.result()
                await self._claims.room()
        finally:
            await follower.close()

    async def _look(self, batch: Sequence[Message]) -> None:
        """Check a batch in a thread; several batches are looked at while an earlier one is folded."""
        groups: dict[str, list[Message]] = {}
        for message in batch:
            session = subjects.session_of(message.subject)
            if session in self._recordings:
                groups.setdefault(session, []).append(message)
            else:
                self._put_off(session, message.seq)
        known = [(self._recordings[session], messages) for session, messages in groups.items()]
        look = asyncio.get_running_loop().run_in_executor(self._threads, _look_at, known)
        await self._looks.put(look)

    def _put_off(self, session: str, seq: int) -> None:
        known = self._directory.get(session)
        if known is not None and (known.sealed or known.state in (State.CLEANUP, State.DESTROYED)):
            return
        self._unknown[session] = seq

    async def _fold_all(self) -> None:
        while True:
            for recording, arrivals in await (await self._looks.get()):
                for arrival in arrivals:
                    await recording.take(arrival)


def _batches(items: Iterable[Message | Discontinuity]) -> Iterator[list[Message]]:
    """Messages in groups of at most BATCH_MESSAGES and about BATCH_BYTES."""
    batch: list[Message] = []
    size = 0
    for item in items:
        if isinstance(item, Discontinuity):
            log.info("reader_took_up next=%d reason=%s", item.next_seq, item.reason)
            continue
        batch.append(item)
        size += len(item.data)
        if size >= BATCH_BYTES or len(batch) >= BATCH_MESSAGES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def identity_of(created: Created, intake: bytes) -> Identity:
    """What the fold must know of a session that has started."""
    who = created.host_key, created.counter, created.prev_genesis, intake
    return Identity(
        session=created.session,
        uid=created.uid,
        host=created.host,
        settings=created.settings,
        genesis=tuple(genesis(created.uid, track, *who) for track in (MAIN, EVENTS)),
    )


def _look_at(groups: Iterable[tuple[Recording, list[Message]]]) -> list[tuple[Recording, list[Arrival]]]:
    return [(recording, recording.look(messages)) for recording, messages in groups]
