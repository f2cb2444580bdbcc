"""Drives chunks again: publishes their claims under the session's run."""

from collections.abc import Iterable, Mapping

from handlers.lifecycle.session import Session
from schemas import subjects
from schemas.events.chunk import Redriven
from schemas.events.headers import headers
from schemas.ports import Jet
from schemas.ports.telemetry import child
from schemas.telemetry import span_facts
from schemas.telemetry.span_facts import CHUNK_TEMPLATE, message_facts

SPAN = "publish chunk.redriven"


async def redrive(jet: Jet, session: Session, indices: Iterable[int], recorded: Mapping[int, int]) -> None:
    """Publish the claims of these chunks. recorded: by index, the stream sequence of `recorded`.

    After a crash one may be published twice: a duplicate changes nothing.
    """
    for index in indices:
        event = Redriven(
            session=session.id, uid=session.uid, run=session.run, index=index, recorded=recorded[index]
        )
        above = await _traceparent(jet, recorded[index])
        key = f"redrive.{session.uid.hex()}.{session.run}.{index}"
        subject = subjects.chunk(subjects.REDRIVEN, session.id)
        with child(jet.tracer, SPAN, "producer", above, key=key) as span:
            span.set(message_facts("send", CHUNK_TEMPLATE, subject))
            span.set({span_facts.INDEX: index, span_facts.RUN: session.run})
            await jet.publish(
                subject,
                event.model_dump_json().encode(),
                headers=headers(event.type, span.traceparent or above),
                msg_id=f"{session.uid.hex()}.{session.run}.redriven.{index}",
            )


async def _traceparent(jet: Jet, recorded: int) -> str:
    """The traceparent of a chunk's `recorded` event: a chunk that is driven again stays in its trace."""
    message = await jet.get(subjects.CHUNKS, recorded)
    return "" if message is None else message.headers.get("traceparent", "")
