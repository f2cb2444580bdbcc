"""Turns NATS messages into ours: ack subjects, direct-get headers, stored messages as JSON.

Source: the server's ADR-4 (headers), ADR-13 (pull), ADR-31 (direct get).
"""

import base64
import re
from datetime import datetime
from typing import Any, Final

from nats.aio.client import Client
from nats.aio.msg import Msg

from schemas.ports.messages import Message

SERVER_HEADERS: Final = frozenset(
    {
        "Nats-Subject",
        "Nats-Sequence",
        "Nats-Time-Stamp",
        "Nats-Num-Pending",
        "Nats-Last-Sequence",
    }
)
_FIRST_ADDED: Final = b"Nats-Stream: "
_STATUS: Final = re.compile(rb"\ANATS/1\.0 (\d+) ?(.*)")
_SHORT_ACK_TOKENS = 9
"""$JS.ACK.stream.consumer.delivered.sseq.cseq.time.pending; longer ones name domain and account first."""


def headers(block: bytes) -> dict[str, str]:
    """Parse a header block of any bytes; an inline status becomes `Status` and `Description`.

    A direct get cuts off the last two bytes of a block and appends `Nats-Stream: `. So that every way of
    reading gives one result, ignored are: those two bytes, an unfinished line before them, any line with that
    name.
    """
    lines = [line for line in block[:-2].split(b"\r\n")[:-1] if _FIRST_ADDED not in line]
    return Client._parse_header_lines(_STATUS.sub(rb"Status: \1\r\nDescription: \2", b"\r\n".join(lines)))


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
        stream=tokens[at - 2],
    )
    return decoded, int(tokens[at + 2])


def direct(message: Msg) -> Message:
    """Return the message in the answer to a direct get.

    Headers that the server adds come last and win. It adds `Nats-Num-Pending` to some answers only: not read.
    """
    found = message.headers or {}
    return Message(
        subject=found["Nats-Subject"],
        data=message.data,
        headers=_writers(found),
        seq=int(found["Nats-Sequence"]),
        stream_time_ns=time_ns(found["Nats-Time-Stamp"]),
    )


def stored(body: dict[str, Any]) -> Message:
    """Return the `message` member of a STREAM.MSG.GET answer."""
    return Message(
        subject=body["subject"],
        data=base64.b64decode(body.get("data", "")),
        headers=_writers(headers(base64.b64decode(body.get("hdrs", "")))),
        seq=int(body["seq"]),
        stream_time_ns=time_ns(body["time"]),
    )


def time_ns(text: str) -> int:
    """Return the nanoseconds since 1970 of an RFC 3339 time in UTC with up to nine digits of fraction."""
    whole, _, fraction = text.rstrip("Z").partition(".")
    seconds = int(datetime.fromisoformat(whole + "+00:00").timestamp())
    return seconds * 1_000_000_000 + int(fraction.ljust(9, "0") or 0)


def _writers(found: dict[str, str]) -> dict[str, str]:
    """Return the headers that can only be the writer's."""
    return {name: text for name, text in found.items() if name not in SERVER_HEADERS}
