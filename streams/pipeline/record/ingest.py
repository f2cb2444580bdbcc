"""Owns the stage `record`: one reader over the partitions of this worker, one Recording for each session.

1. The reader acknowledges nothing. Where it stands is not remembered: on start the stream's last sequence
   is noted, open sessions are brought up to it on their own subjects, and the reader follows from there.
2. A session that is not known yet leaves its fragments in the stream; when it appears, it catches up.
3. Fragments of a session that is sealed, being cleaned up or destroyed are dropped.
4. No session can hold up or stop another one: of one that takes more than its part (`Recording` says when)
   the rest is left in the stream, and read by the session itself, in its own time.
"""

import asyncio
import json
import logging
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import AsyncExitStack, suppress
from functools import partial

from handlers.lifecycle.session import Session
from handlers.stages.record.admit import Arrival, EndKeys
from handlers.stages.record.pieces import Identity
from schemas import subjects
from schemas.events.session import State
from schemas.ports.messages import Discontinuity, Message
from streams.event_store.event_store import EventStore
from streams.pipeline.chunk_memory import ChunkMemory
from streams.pipeline.record.recording import Recording
from streams.pipeline.record.shared import Shared
from streams.pipeline.runner import Limits
from streams.scheduling.retry import retry

BATCH_BYTES = 4 << 20
"""What is looked at in one thread job, at most RECORDER_BUFFER_SIZE messages."""
STRAYS = 100
"""Messages of one host under another's session that this process keeps in DEAD."""
GATHER_S = 0.005
"""Between two reads: a flood of small messages is a few reads, not one for each."""
ROOM_S = 0.1
"""How long the reader waits for a host that has too much under way, before its session falls behind."""

log = logging.getLogger("lucid.ingest")


class Ingest:
    """Runs `record` over some partitions until cancelled."""

    def __init__(
        self,
        store: EventStore,
        chunk_memory: ChunkMemory,
        threads: Executor,
        end_keys: EndKeys,
        partitions: Collection[int],
        limits: Limits,
    ) -> None:
        """limits: `workers` + 1 batches of `slots` messages are looked at while an earlier one is folded."""
        self._jet, self._directory, self._threads = store.jet, store.directory, threads
        self._partitions = partitions
        self._shared = Shared(store.jet, chunk_memory, threads, end_keys)
        self._recordings: dict[str, Recording] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self._seen = 0
        """The last stream sequence that the reader has looked at: a session that appears catches up to it."""
        self._strays = 0
        self._looks: asyncio.Queue[asyncio.Future[list[tuple[Recording, list[Arrival]]]]]
        self._looks = asyncio.Queue(limits.workers + 1)
        self._batch_messages = limits.slots

    async def run(self) -> None:
        """Until cancelled. Raises what nobody foresaw: the worker ends, and is started again."""
        await retry(self._directory.ready)
        self._seen = (await retry(lambda: self._jet.info(subjects.RECORDINGS))).last_seq
        self._directory.on_change(self._changed)
        for session in self._directory.sessions():
            self._changed(session)
        try:
            async with AsyncExitStack() as serving, asyncio.TaskGroup() as tasks:
                for p in self._partitions:
                    told = partial(self._told, p)
                    await serving.enter_async_context(self._jet.serve(subjects.heard(p), told))
                for service in (self._shared.side_tasks.run(), self._fold_all(), self._read_all()):
                    tasks.create_task(service)
        finally:
            recordings = list(self._recordings.values())
            await asyncio.gather(*(r.close() for r in recordings), *self._closing, return_exceptions=True)

    # the sessions

    def _changed(self, session: Session) -> None:
        """A session's log grew: take it up, pause it, or let it go."""
        if subjects.partition(session.id) not in self._partitions:
            return
        recording = self._recordings.get(session.id)
        if session.sealed or session.state in (State.CLEANUP, State.DESTROYED):
            if recording is not None:
                del self._recordings[session.id]
                closing = asyncio.get_running_loop().create_task(recording.close())
                self._closing.add(closing)
                closing.add_done_callback(self._closing.discard)
            return
        if recording is None and session.created is not None and session.intake:
            identity = Identity.of(session.created, session.intake)
            recording = Recording(self._shared, identity, session.created.host_key)
            self._recordings[session.id] = recording
            recording.catch_up(self._seen)
        if recording is not None:
            recording.released(session.released_chunks)
            recording.pause(session.state in (State.PAUSING, State.PAUSED))

    def _told(self, p: int) -> bytes:
        """What streams.conductor.host_watch is told of a partition: JSON, by session."""
        told = {
            name: recording.told
            for name, recording in self._recordings.items()
            if recording.told and subjects.partition(name) == p
        }
        return json.dumps(told).encode()

    # the reader

    async def _read_all(self) -> None:
        filters = [subjects.recording_filter(p) for p in sorted(self._partitions)]
        follower = self._jet.follow(subjects.RECORDINGS, filters, self._seen + 1)
        try:
            while items := await follower.batch():
                looked: Counter[Recording] = Counter()
                for batch in _batches(items, self._batch_messages):
                    await self._look(batch, looked)
                await self._room(looked)
                await asyncio.sleep(GATHER_S)
        finally:
            await follower.close()

    async def _look(self, batch: Sequence[Message], looked: "Counter[Recording]") -> None:
        """Check a batch in a thread; several batches are looked at while an earlier one is folded.

        A message whose session is unknown stays in the stream, and is found when the session appears.
        looked: how many messages of this read were, by recording.
        """
        groups: dict[Recording, list[Message]] = {}
        for message in batch:
            recording = self._recordings.get(subjects.session_of(message.subject))
            if recording is None:
                continue
            if recording.subject != message.subject:
                self._stray(recording, message)
            elif recording.leaves(len(message.data), looked[recording]):
                recording.leave(message.seq)
            else:
                looked[recording] += 1
                groups.setdefault(recording, []).append(message)
        self._seen = batch[-1].seq
        if groups:
            known = list(groups.items())
            await self._looks.put(asyncio.get_running_loop().run_in_executor(self._threads, _look_at, known))

    async def _room(self, looked: Iterable[Recording]) -> None:
        """Wait until there is room for more; sessions whose host has none of its own soon fall behind."""
        chunk_memory = self._shared.chunk_memory
        with suppress(TimeoutError):
            async with asyncio.timeout(ROOM_S):
                for host in {recording.identity.host for recording in looked}:
                    await chunk_memory.room(host)
        for recording in looked:
            if recording.full:
                recording.leave()
        await chunk_memory.room()

    def _stray(self, recording: Recording, message: Message) -> None:
        """One host's message under another's session: never the other's business, but a few are kept."""
        self._strays += 1
        if self._strays <= STRAYS:
            why = f"host {subjects.host_of(message.subject)} is not the session's"
            self._shared.dead_letter(
                recording.identity.session, message.seq, "fragment.host", why, message.data
            )

    async def _fold_all(self) -> None:
        while True:
            for recording, arrivals in await (await self._looks.get()):
                for arrival in arrivals:
                    recording.take(arrival)


def _batches(items: Iterable[Message | Discontinuity], most: int) -> Iterator[list[Message]]:
    """Messages in groups of at most `most` and about BATCH_BYTES."""
    batch: list[Message] = []
    size = 0
    for item in items:
        if isinstance(item, Discontinuity):
            log.info("reader_took_up next=%d reason=%s", item.next_seq, item.reason)
            continue
        batch.append(item)
        size += len(item.data)
        if size >= BATCH_BYTES or len(batch) >= most:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _look_at(groups: Iterable[tuple[Recording, list[Message]]]) -> list[tuple[Recording, list[Arrival]]]:
    return [(recording, recording.look(messages)) for recording, messages in groups]
