"""Makes a chunk's bytes again from the recording stream, by the same pure functions as the first time.

1. There is no staging area: bytes that are not in memory come from here, after a miss, a replay or a crash.
   An overflow file is memory of this process. Bytes that it lost or damaged are a miss.
2. Pure functions run in threads; the event loop only fetches.
"""

from handlers.stages.chunk import chunk
from handlers.stages.compress import compress
from handlers.stages.context import Context
from handlers.stages.encrypt import encrypt
from schemas.config.logs import logger
from schemas.errors import RefusedByState, Rejected
from schemas.events.chunk import Chunked, Compressed, Encrypted, Recorded
from schemas.format.digest import Buffer
from schemas.format.fragment import Fragment, parse
from schemas.ports.metrics import NO_METER, Meter
from schemas.ports.telemetry import child
from schemas.telemetry.span_facts import FRAGMENTS, INDEX, SESSION
from streams.event_store.chunk_log import data_seqs
from streams.event_store.recordings import Recordings
from streams.pipeline.spilled_fragments import Kept, Spilled, read_back
from streams.scheduling.threads import Threads, is_slow

SPAN = "recompute chunk"
"""A span with this one below it did not find the bytes in memory."""

log = logger("lucid.recompute")


class Recompute:
    """Makes the plain, payload and sealed bytes of a chunk. `run` only labels the events."""

    def __init__(self, recordings: Recordings, threads: Threads, meter: Meter = NO_METER) -> None:
        self._recordings, self._threads = recordings, threads
        self._count = meter.counter(
            "lucid_recomputations", "Chunks that were made again from the stream."
        ).add

    async def fragments(self, recorded: Recorded) -> list[Fragment]:
        """The chunk's data fragments by seq. Raises RefusedByState (chunk.source_gone)."""
        self._count()
        seqs = data_seqs(recorded)
        with child(self._recordings.jet.tracer, SPAN) as span:
            span.set({SESSION: recorded.session, INDEX: recorded.index, FRAGMENTS: len(seqs)})
            found = await self._recordings.get_many(recorded.session, seqs)
        missing = [seq for seq in seqs if seq not in found]
        if missing:
            raise RefusedByState(
                f"chunk {recorded.index} of {recorded.session} cannot be made again: "
                f"{len(missing)} of its fragments are gone from the stream",
                code="chunk.source_gone",
            )
        return await self._threads.run(recorded.host, lambda: [parse(found[seq].data) for seq in seqs])

    async def plain(
        self, run: int, context: Context, kept: list[Kept] | None = None
    ) -> tuple[Chunked, Buffer]:
        """kept: the fragments, if they are in memory or in a file. The list is emptied."""
        host = context.recorded.host
        if kept is not None:
            made = await self._threads.run(host, lambda: _of_kept(run, kept, context))
            if made is not None:
                return made
        fragments = await self.fragments(context.recorded)
        return await self._threads.run(host, lambda: chunk(run, fragments, context))

    async def payload(
        self, run: int, context: Context, plain: Buffer | None = None
    ) -> tuple[Compressed, Buffer]:
        held = plain if plain is not None else (await self.plain(run, context))[1]
        return await self._threads.run(
            context.recorded.host, lambda: compress(run, held, context), slow=is_slow(context.settings)
        )

    async def sealed(
        self, run: int, context: Context, payload: tuple[Compressed, Buffer] | None = None
    ) -> tuple[Encrypted, Buffer]:
        event, held = payload if payload is not None else await self.payload(run, context)
        return await self._threads.run(context.recorded.host, lambda: encrypt(event, held, context))


def _of_kept(run: int, kept: list[Kept], context: Context) -> tuple[Chunked, Buffer] | None:
    """Return what `chunk` makes of kept fragments; None: a file has lost or damaged some. Blocks."""
    is_spilled = any(isinstance(one, Spilled) for one in kept)
    fragments = read_back(kept)
    try:
        if fragments is not None:
            return chunk(run, fragments, context)
        reason = "overflow.read"
    except Rejected as error:
        if not is_spilled:
            raise
        reason = error.code
    log.warning(
        "overflow_missed", session=context.recorded.session, index=context.recorded.index, reason=reason
    )
    return None
