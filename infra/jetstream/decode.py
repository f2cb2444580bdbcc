"""Owns how NATS messages become ours: ack subjects, direct-get headers, stored messages as JSON.

Source: the server's ADR-13 (pull), ADR-31 (direct get).
"""

import base64
from datetime import datetime
from typing import Any, Final

from nats.aio.msg import Msg

from schemas.jetstream import Message

SERVER_HEADERS: Final = frozenset(
    {
        "Nats-Stream",
        "Nats-Subject",
        "Nats-Sequence",
        "Nats-Time-Stamp",
        "Nats-Num-Pending",
        "Nats-Last-Sequence",
    }
)
_SHORT_ACK_TOKENS = 9
"""$JS.ACK.stream.consumer.delivered.sseq.cseq.time.pending; longer ones name domain and account first."""


def delivered(message: Msg) -> tuple[Message, int]:
    """Return a message that a consumer delivered, and its number among that consumer's deliveries."""
    tokens = message.reply.split(".")
    at = 4 if len(tokens) == _SHORT_ACK_TOKENS else 6
    decoded = Message(
        subject=message.subject,
        data=message.data,
        headers=_writers(message.headers or {}),
        seq=int(tokens[at + 1]),
        stream_time_ns=int(tokens[at + 3]),
        deliveries=int(tokens[at]),
        pending=int(tokens[at + 4]),
        reply=message.reply,
    )
    return decoded, int(tokens[at + 2])


def direct(message: Msg) -> Message:
    """Return a message that a direct get answered with.

    What the server adds comes last and wins. `Nats-Num-Pending` it adds to some answers only: not read here.
    """
    headers = message.headers or {}
    return Message(
        subject=headers["Nats-Subject"],
        data=message.data,
        headers=_writers(headers),
        seq=int(headers["Nats-Sequence"]),
        stream_time_ns=time_ns(headers["Nats-Time-Stamp"]),
    )


def stored(body: dict[str, Any]) -> Message:
    """Return the `message` member of a STREAM.MSG.GET answer."""
    raw = base64.b64decode(body.get("hdrs", ""))
    lines = [line.partition(":") for line in raw.decode("utf-8", "replace").split("\r\n")[1:] if line]
    return Message(
        subject=body["subject"],
        data=base64.b64decode(body.get("data", "")),
        headers=_writers({name.strip(): value.strip() for name, _, value in lines}),
        seq=int(body["seq"]),
        stream_time_ns=time_ns(body["time"]),
    )


def time_ns(text: str) -> int:
    """Nanoseconds since 1970 of an RFC 3339 time in UTC with up to nine digits of fraction."""
    whole, _, fraction = text.rstrip("Z").partition(".")
    seconds = int(datetime.fromisoformat(whole + "+00:00").timestamp())
    return seconds * 1_000_000_000 + int(fraction.ljust(9, "0") or 0)


def _writers(headers: dict[str, str]) -> dict[str, str]:
    """What is the writer's own for certain: a message has the same headers whichever way it is read."""
    return {name: text for name, text in headers.items() if name not in SERVER_HEADERS}
