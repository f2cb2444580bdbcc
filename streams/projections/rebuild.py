"""Makes the read models anew from the log: a new generation beside the active one, which answers meanwhile.

1. The new generation becomes the active one when it contains every event that the active one contains.
2. A rebuild that ends half-way leaves the active generation; the next one begins anew.
3. A projector that runs meanwhile writes to the old generation, and then goes on with the new one.
"""

import time
from collections.abc import Callable
from contextlib import aclosing
from typing import NamedTuple

from schemas import subjects
from schemas.errors import NotFound
from schemas.ports import Jet
from schemas.ports.read_models import Views
from schemas.telemetry.span_facts import EVENTS
from streams.projections.changes import Changes, log_id
from streams.projections.projector import Documents, source_name

IDLE_S = 0.05
SPAN = "rebuild read models"


class Progress(NamedTuple):
    """How far a rebuild is."""

    position: int
    """Stream sequence of the last event in the new generation."""
    newest: int
    """That of the last event of the log."""
    events: int
    documents: int
    """Documents written, replaced ones included."""
    seconds: float

    @property
    def rate(self) -> float:
        """Events a second."""
        return self.events / self.seconds if self.seconds else 0.0


async def rebuild(
    jet: Jet, views: Views, documents: Documents, report: Callable[[Progress], None]
) -> Progress:
    """Return when a new generation is the active one. report: called after each batch.

    Raises NotFound (log.empty), Conflict (views.generation): another rebuild has begun.
    """
    with jet.tracer.span(SPAN) as span:
        done = await _rebuild(jet, views, documents, report)
        span.set({EVENTS: done.events, "lucid.documents": done.documents})
        return done


async def _rebuild(
    jet: Jet, views: Views, documents: Documents, report: Callable[[Progress], None]
) -> Progress:
    name, _ = await log_id(jet)
    if not name:
        raise NotFound("the log has no event yet", code="log.empty", hint="lucid record")
    generation = await views.build(source_name(name, documents))
    began_s, progress = time.monotonic(), Progress(0, await _newest(jet), 0, 0, 0.0)
    changes = Changes(jet, 0, IDLE_S, shares=False)
    async with aclosing(changes.batches()) as batches:
        async for batch in batches:
            if batch.position > progress.position:
                made = await documents.of(batch.sessions)
                await views.apply(generation.number, made, batch.position)
                progress = Progress(
                    batch.position,
                    max(progress.newest, batch.position),
                    progress.events + batch.events,
                    progress.documents + len(made),
                    time.monotonic() - began_s,
                )
                report(progress)
            if progress.position >= progress.newest:
                if await views.switch(generation.number):
                    break
                progress = progress._replace(newest=await _newest(jet))
    return progress


async def _newest(jet: Jet) -> int:
    last = await jet.last(subjects.LIFECYCLE, subjects.ALL_LIFECYCLE)
    return last.seq if last else 0
