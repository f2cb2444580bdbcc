"""Writes and reads dead letters: messages that will not be tried again, with the reason, in the stream DEAD.

1. A dead letter is published before its message is acknowledged. After a crash between the two the same
   letter is published again; within the stream's window the server drops the second one by its message id.
   That id names the session, because sequences of two shards may be equal.
2. DEAD lets the oldest go when it is full: a refusal can always be written down.
3. A letter stays in the trace of its message. Its span has the same id when it is published again.
"""

from collections import Counter
from contextlib import suppress
from typing import Any

from pydantic import ValidationError

from schemas import subjects
from schemas.errors import LucidError, NotFound, Rejected, session_absent
from schemas.events.chunk import ChunkEvent, Dead
from schemas.events.headers import headers, too_long
from schemas.events.upcast import read_chunk_event
from schemas.ports import Reader, Span, Writer
from schemas.ports.messages import Message
from schemas.ports.metrics import trace_id_of
from schemas.ports.telemetry import child
from schemas.telemetry import span_facts
from schemas.telemetry.span_facts import DEAD_TEMPLATE, message_facts
from schemas.telemetry.trace_context import TraceContext
from streams.event_store.recordings import Recordings

BODY_BYTES = 64 * 1024
"""Kept of the message's body: base64 of a whole one would not fit into a message. It stays in its stream."""
SPAN = "publish lucid.dead"
BUG = "job.failed"
"""Code of an error that is none of ours."""
MOST, MOST_BYTES = 100, 10 << 20
"""Dead letters in one answer: 100 of the longest fit."""
HOSTS_MOST = 10
"""Hosts in one answer about an absent session, however many use its name."""


def dead_letter(stage: str, session: str, message: Message, error: Exception) -> Dead:
    """The dead letter of a message between two stages. It names the message's chunk if the message does."""
    index, run = -1, 0
    with suppress(ValidationError):
        if not too_long(message.headers):  # no stage of ours writes such headers: it ends no chunk
            claim = ChunkEvent.model_validate_json(message.data)
            index, run = claim.index, claim.run
    code, text = (error.code, error.message) if isinstance(error, LucidError) else (BUG, str(error))
    return Dead(
        stage=stage,
        session=session,
        index=index,
        run=run,
        seq=message.seq,
        code=code,
        message=text[:1000] or type(error).__name__,
        body=bytes(message.data[:BODY_BYTES]),
    )


async def publish_dead_letter(jet: Writer, dead: Dead, above: str = "") -> None:
    """Write it into DEAD. above: the traceparent of the attempt that failed, or of the refused fragment.

    Safe to repeat. Raises Unavailable, NoSpace.
    """
    with _span(jet, dead, above) as span:
        trace = span.traceparent or (above if TraceContext.parse(above) else "")
        await jet.publish(
            subjects.dead(dead.stage, dead.session),
            dead.model_dump_json().encode(),
            headers=headers(dead.type, trace) if trace else None,
            msg_id=f"dead.{dead.stage}.{dead.session}.{dead.seq}.{dead.run}",
        )


def _span(jet: Writer, dead: Dead, above: str) -> Span:
    """The span of one letter. A message without a trace begins none."""
    span = child(jet.tracer, SPAN, "producer", above, key=f"dead.{dead.stage}.{dead.seq}")
    span.set(message_facts("send", DEAD_TEMPLATE, subjects.dead(dead.stage, dead.session)))
    span.set({span_facts.STAGE: dead.stage, span_facts.STREAM_SEQ: dead.seq, span_facts.CODE: dead.code})
    if dead.index >= 0:
        span.set({span_facts.INDEX: dead.index, span_facts.RUN: dead.run})
    return span


async def dead_letters(jet: Reader, session_id: str) -> list[dict[str, Any]]:
    """The dead letters under a session's name, oldest first, at most MOST; JSON members without the body."""
    found, _ = await jet.batch(
        subjects.DEAD, subjects.dead("*", session_id), max_messages=MOST, max_bytes=MOST_BYTES
    )
    letters = []
    for message in found:
        with suppress(Rejected):
            event = read_chunk_event(message.data)
            if isinstance(event, Dead):
                letter = event.model_dump(mode="json", exclude={"type", "session", "body"})
                letters.append({**letter, "trace_id": trace_id_of(message.headers)})
    return letters


async def dead_letter_count(jet: Reader, session_id: str) -> int:
    """How many messages DEAD holds under a session's name."""
    return sum((await jet.subject_counts(subjects.DEAD, subjects.dead("*", session_id))).values())


async def absent_session(recordings: Recordings, session_id: str) -> NotFound:
    """The error session.absent. It tells which messages came under the name all the same."""
    letters = Counter((one["stage"], one["code"]) for one in await dead_letters(recordings.jet, session_id))
    came = [f"{count} refused by {stage} ({code})" for (stage, code), count in letters.items()]
    fragments = await recordings.counts(session_id)
    came += [
        f"{count} of host {subjects.host_of(subject)} waiting for it to begin"
        for subject, count in sorted(fragments.items())[:HOSTS_MOST]
    ]
    return session_absent(session_id, f", but messages came for it: {', '.join(came)}" if came else "")
