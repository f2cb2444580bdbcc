"""Runs the stage `record`: one reader over the shards of this worker, one Recording for each session.

1. The reader acknowledges nothing and stores no position. At the start each stream's last sequence is noted.
   Open sessions catch up to it on their own subjects, and the reader follows from there.
2. Fragments of an unknown session stay in the stream; when the session appears, it catches up.
3. Fragments of a session that is sealed, being cleaned up or destroyed are dropped.
4. A session is in one shard, and the reader brings the messages of each shard in their order.
5. No session slows down another one. If a session exceeds its share (recording.py, rule 4), its other
   messages stay in the stream, and the session reads them by itself.
"""

import asyncio
import json
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import AsyncExitStack, suppress
from functools import partial

from handlers.lifecycle.session import Session
from handlers.stages.record.admit import Arrival
from handlers.stages.record.pieces import Identity
from schemas import subjects
from schemas.config.logs import logger
from schemas.events.session import State
from schemas.ports.messages import Discontinuity, Message
from streams.event_store.session_directory import SessionDirectory
from streams.pipeline.record.recording import Recording
from streams.pipeline.record.shared import Shared
from streams.pipeline.runner import Limits
from streams.scheduling.retry import retry

BATCH_BYTES = 4 << 20
"""Checked in one call of a thread, at most RECORDER_BUFFER_SIZE messages."""
STRAYS = 100
"""Messages under the session of another host that this process writes into DEAD."""
GATHER_S, GATHERED_BYTES = 0.02, 2 << 20
"""The pause between two reads, unless the last one brought so many bytes. So small messages share a read."""
AT_ONCE_MESSAGES, AT_ONCE_BYTES = 4, 256 << 10
"""A batch within both is checked on the event loop (0.1 ms a message): a thread would cost more."""
FULL_S = 0.1
"""The reader waits so long for a host with too many chunks under way; then its session falls behind."""

log = logger("lucid.ingest")


class Ingest:
    """Runs `record` over some partitions until cancelled."""

    def __init__(
        self, shared: Shared, directory: SessionDirectory, partitions: Collection[int], limits: Limits
    ) -> None:
        """limits: `workers` + 1 batches of `slots` messages are checked while an earlier batch is folded."""
        self._jet, self._directory, self._threads = shared.jet, directory, shared.threads
        self._partitions, self._shared = partitions, shared
        self._recordings: dict[str, Recording] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self._seen: dict[str, int] = {}
        """By stream, the last sequence that was read: a new session catches up to it."""
        self._strays = 0
        self._looks: asyncio.Queue[asyncio.Future[list[tuple[Recording, list[Arrival]]]]]
        self._looks = asyncio.Queue(limits.workers + 1)
        self._batch_messages = limits.slots
        shared.meter.rows(
            "lucid_record_read_sequence",
            "Stream sequence of the last fragment that a worker has read.",
            ("stream",),
            lambda: {(stream,): seq for stream, seq in self._seen.items()},
        )

    async def run(self) -> None:
        """Run until cancelled. An unforeseen error ends the worker, which is started again."""
        await retry(self._directory.ready)
        for stream in self._shared.recordings.held_by(self._partitions):
            self._seen[stream] = (await retry(partial(self._shared.recordings.info, stream))).last_seq
        self._directory.on_change(self._changed)
        for session in self._directory.sessions():
            self._changed(session)
        try:
            async with AsyncExitStack() as serving, asyncio.TaskGroup() as tasks:
                for p in self._partitions:
                    answer = partial(self._progress, p)
                    await serving.enter_async_context(self._jet.serve(subjects.host_activity(p), answer))
                for service in (self._shared.side_tasks.run(), self._fold_all(), self._read_all()):
                    tasks.create_task(service)
        finally:
            recordings = list(self._recordings.values())
            await asyncio.gather(*(r.close() for r in recordings), *self._closing, return_exceptions=True)

    # the sessions

    def _changed(self, session: Session) -> None:
        """A session's log has a new event: start, pause or close its recording."""
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
            recording.catch_up(self._seen[self._shared.recordings.stream_of(session.id)])
        if recording is not None:
            recording.released(session.released_chunks)
            recording.halt(session.pipeline_paused)
            recording.pause(session.state in (State.PAUSING, State.PAUSED))

    def _progress(self, p: int) -> bytes:
        """The answer to streams.conductor.host_watch about one partition: JSON, by session."""
        progress = {
            name: recording.progress
            for name, recording in self._recordings.items()
            if recording.progress and subjects.partition(name) == p
        }
        return json.dumps(progress).encode()

    # the reader

    async def _read_all(self) -> None:
        """Follow the owned partitions in all streams."""
        follower = self._shared.recordings.follow(self._partitions, self._seen)
        try:
            while items := await follower.batch():
                looked: Counter[Recording] = Counter()
                read_bytes = 0
                for batch, size in _batches(items, self._batch_messages):
                    await self._look(batch, size, looked)
                    read_bytes += size
                await self._wait_for_space(looked)
                if read_bytes < GATHERED_BYTES:
                    await asyncio.sleep(GATHER_S)
        finally:
            await follower.close()

    async def _look(self, batch: Sequence[Message], size: int, looked: "Counter[Recording]") -> None:
        """Check a batch in a thread; several batches are checked while an earlier one is folded.

        size: bytes of the batch; looked: messages of this read that were checked, by recording.
        """
        groups: dict[Recording, list[Message]] = {}
        for message in batch:
            self._seen[message.stream] = message.seq  # before any await: a new session misses no message
            recording = self._recordings.get(subjects.session_of(message.subject))
            if recording is None:
                continue
            if recording.subject != message.subject:
                self._stray(recording, message)
            elif recording.leaves(message.size, looked[recording]):
                recording.leave(message.seq)
            else:
                looked[recording] += 1
                groups.setdefault(recording, []).append(message)
        if groups:
            known, loop = list(groups.items()), asyncio.get_running_loop()
            if len(batch) <= AT_ONCE_MESSAGES and size <= AT_ONCE_BYTES:
                looking = loop.create_future()
                looking.set_result(_look_at(known))
            else:
                looking = loop.run_in_executor(self._threads, _look_at, known)
            await self._looks.put(looking)

    async def _wait_for_space(self, looked: Iterable[Recording]) -> None:
        """Wait until memory has space. A session falls behind if its host stays full for FULL_S."""
        chunk_memory = self._shared.chunk_memory
        with suppress(TimeoutError):
            async with asyncio.timeout(FULL_S):
                for host in {recording.identity.host for recording in looked}:
                    await chunk_memory.wait_for_space(host)
        for recording in looked:
            if recording.full:
                recording.leave()
        await chunk_memory.wait_for_space()

    def _stray(self, recording: Recording, message: Message) -> None:
        """A message under the session of another host: it counts for nothing, but STRAYS go to DEAD."""
        self._strays += 1
        if self._strays <= STRAYS:
            why = f"host {subjects.host_of(message.subject)} is not the session's"
            session, data = recording.identity.session, message.data
            # Its trace is its sender's word: the letter has none.
            self._shared.dead_letter(session, message.seq, "fragment.host", why, data)

    async def _fold_all(self) -> None:
        while True:
            for recording, arrivals in await (await self._looks.get()):
                for arrival in arrivals:
                    recording.take(arrival)


def _batches(items: Iterable[Message | Discontinuity], most: int) -> Iterator[tuple[list[Message], int]]:
    """Messages in groups of at most `most` messages and about BATCH_BYTES, and their bytes."""
    batch: list[Message] = []
    size = 0
    for item in items:
        if isinstance(item, Discontinuity):
            log.info("reader_took_up", stream=item.stream, next=item.next_seq, reason=item.reason)
            continue
        batch.append(item)
        size += item.size
        if size >= BATCH_BYTES or len(batch) >= most:
            yield batch, size
            batch, size = [], 0
    if batch:
        yield batch, size


def _look_at(groups: Iterable[tuple[Recording, list[Message]]]) -> list[tuple[Recording, list[Arrival]]]:
    return [(recording, recording.look(messages)) for recording, messages in groups]
