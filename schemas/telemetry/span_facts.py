"""The names of facts in spans: those of OpenTelemetry's conventions for messaging, and ours (lucid.*).

The names of spans and templates are few: no session, host or number is in them. Facts may hold these.
"""

from typing import Final

from schemas.ports.telemetry import Fact
from schemas.subjects import session_of

SESSION: Final = "lucid.session.id"
HOST: Final = "lucid.host"
INDEX: Final = "lucid.chunk.index"
RUN: Final = "lucid.run"
STAGE: Final = "lucid.stage"
ATTEMPT: Final = "lucid.attempt"
STREAM_SEQ: Final = "lucid.stream.sequence"
FRAGMENT_SEQ: Final = "lucid.fragment.seq"
FRAGMENTS: Final = "lucid.fragments"
PLAIN_BYTES: Final = "lucid.plain.bytes"
PAYLOAD_BYTES: Final = "lucid.payload.bytes"
SEALED_BYTES: Final = "lucid.sealed.bytes"
CODE: Final = "lucid.code"
REQUEST_ID: Final = "lucid.request.id"
ACTION: Final = "lucid.action"
COMMAND: Final = "lucid.command"
ERROR: Final = "error.type"
REPLAY: Final = "lucid.replay"
OUTCOME: Final = "lucid.outcome"
CHUNKS: Final = "lucid.chunks"
BYTES: Final = "lucid.bytes"
FAULTS: Final = "lucid.faults"
EVENTS: Final = "lucid.events"
BODY_BYTES: Final = "messaging.message.body.size"
MESSAGE_ID: Final = "messaging.message.id"
MESSAGES: Final = "messaging.batch.message_count"

RECORDING_TEMPLATE: Final = "lucid.rec.{partition}.{host}.{session}"
CHUNK_TEMPLATE: Final = "lucid.chunk.{step}.{partition}.{session}"
DEAD_TEMPLATE: Final = "lucid.dead.{stage}.{partition}.{session}"


def message_facts(operation: str, template: str, subject: str) -> dict[str, Fact]:
    """Return the facts of every span about a message of a session. operation: send or process."""
    return {
        "messaging.system": "nats",
        "messaging.operation.type": operation,
        "messaging.operation.name": "publish" if operation == "send" else operation,
        "messaging.destination.template": template,
        "messaging.destination.name": subject,
        SESSION: session_of(subject),
    }
