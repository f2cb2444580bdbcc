"""Turns fragments into durable chunks with the pipeline's pure functions and nothing between them.

1. The functions and the number of threads are those of the six stages: check fragments, fold them, open,
   compress, encrypt, hash the leaf, put, read back, compare.
2. It makes no event, no acknowledgement and no claim. A crash loses everything.
"""

import asyncio
from collections.abc import Sequence
from concurrent.futures import Executor, ThreadPoolExecutor

from handlers.stages.chunk import chunk
from handlers.stages.compress import compress
from handlers.stages.context import Context
from handlers.stages.encrypt import encrypt
from handlers.stages.merkle import merkle
from handlers.stages.record.admit import Unfit, admit
from handlers.stages.record.fold import Fold
from handlers.stages.record.pieces import FoldedFragment
from handlers.stages.store import store
from schemas.buffers import Bytes
from schemas.errors import EvidenceFalse
from schemas.events.chunk import Ended, Proven, Recorded
from schemas.format.file_names import stored_chunk
from schemas.format.fragment import Fragment, Kind
from schemas.ports import Blobs
from streams.bench.case import Case
from streams.event_store.chunk_log import data_seqs
from streams.scheduling.threads import THREADS

AHEAD = 3
"""Batches that are checked while an earlier one is folded: as many as `record` has."""
CHUNKS_AT_ONCE = 6
"""Bounds memory: a chunk of 10 MiB is in memory up to three times while it is processed."""

Batch = Sequence[tuple[int, Bytes]]
"""Stream sequence and bytes of some fragments."""


def pools() -> tuple[ThreadPoolExecutor, ThreadPoolExecutor]:
    """Threads for work and for disk, as many as a worker has."""
    return ThreadPoolExecutor(THREADS, "bench-work"), ThreadPoolExecutor(THREADS, "bench-disk")


class Line:
    """The line of one session. Call `take` with batches in stream order, then `finish`."""

    def __init__(self, case: Case, blobs: Blobs, threads: Executor, disk: Executor) -> None:
        self._case, self._blobs, self._threads, self._disk = case, blobs, threads, disk
        self._keys = case.keys
        self._fold = Fold(case.identity)
        self._held: dict[int, Fragment] = {}
        self._checks: asyncio.Queue[asyncio.Future[list[tuple[int, Fragment]]]] = asyncio.Queue(AHEAD)
        self._free = asyncio.Semaphore(CHUNKS_AT_ONCE)
        self._chunks = asyncio.TaskGroup()
        self._ended: asyncio.Future[Ended] = asyncio.get_running_loop().create_future()

    async def __aenter__(self) -> "Line":
        await self._chunks.__aenter__()
        self._folding = self._chunks.create_task(self._fold_all())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: object
    ) -> None:
        if error is not None:
            self._folding.cancel()
        await self._chunks.__aexit__(kind, error, at)  # type: ignore[arg-type]  # a traceback, or None

    @property
    def ended(self) -> bool:
        return self._ended.done()

    async def take(self, batch: Batch) -> None:
        """Return when the batch is queued."""
        await self._checks.put(asyncio.get_running_loop().run_in_executor(self._threads, self._check, batch))

    async def finish(self) -> Ended:
        """Return when the recording has ended and every chunk is durable and read back."""
        ended = await self._ended
        for _ in range(CHUNKS_AT_ONCE):
            await self._free.acquire()
        return ended

    def _check(self, batch: Batch) -> list[tuple[int, Fragment]]:
        checked = []
        for seq, whole in batch:
            found = admit(whole, self._case.host_public)
            if isinstance(found, Unfit):
                raise EvidenceFalse(found.message, code=found.code)
            checked.append((seq, found))
        return checked

    async def _fold_all(self) -> None:
        while not self._ended.done():
            for seq, fragment in await (await self._checks.get()):
                if fragment.header.kind is Kind.DATA:
                    self._held[seq] = fragment
                for output in self._fold.take(FoldedFragment.of(seq, fragment)):
                    match output:
                        case Recorded():
                            held = [self._held.pop(at) for at in data_seqs(output)]
                            await self._free.acquire()
                            self._chunks.create_task(self._store(output, held))
                        case Ended():
                            self._ended.set_result(output)
                        case _:
                            raise EvidenceFalse(f"a fragment was refused: {output}", code="bench.refused")

    async def _store(self, recorded: Recorded, fragments: list[Fragment]) -> None:
        loop = asyncio.get_running_loop()
        context = Context(recorded, recorded.index, self._case.settings, self._keys)
        sealed, proven = await loop.run_in_executor(self._threads, _seal, fragments, context)
        await loop.run_in_executor(self._disk, self._keep, sealed, proven, context)
        self._free.release()

    def _keep(self, sealed: bytearray, proven: Proven, context: Context) -> None:
        name = stored_chunk(proven.uid, proven.index)
        self._blobs.put(name, sealed)
        read_back = self._blobs.content(name)
        if read_back is None or store(proven, read_back, context) is None:
            raise EvidenceFalse(
                f"chunk {name} was read back with other bytes", code="store.false", place=name
            )


def _seal(fragments: list[Fragment], context: Context) -> tuple[bytearray, Proven]:
    _, plain = chunk(0, fragments, context)
    compressed, payload = compress(0, plain, context)
    encrypted, sealed = encrypt(compressed, payload, context)
    return sealed, merkle(encrypted, context)
