"""Owns what the driver must bear of messages that others wrote.

1. The server stores a message under any name without blanks and line ends, and any header block. What
   the driver cannot read of it ends its read loop, silently: nothing is heard any more, and a message that is
   in a stream comes again after every restart.
2. Bytes of a name that are no UTF-8 become U+FFFD. Nothing of ours is called so: who reads it refuses it.
3. It leans on inner attributes of the driver, and is pinned with it. It mends the class, for FastStream makes
   clients of its own.
"""

import logging
import re
from typing import Any

from nats.aio.client import Client
from nats.protocol import parser

from infra.jetstream import decode

_NAME = rb"[ \t]+([^ \t\r\n]+)[ \t]+([0-9]+)[ \t]+(([^ \t\r\n]+)[ \t]+)?"
"""Subject, subscription, and a reply with the blank after it."""

log = logging.getLogger("lucid.nats")


async def _headers(_: Client, headers: bytes | None) -> dict[str, str] | None:
    return decode.headers(headers) if headers else None


def _message(client: Client, sid: int, subject: bytes, reply: bytes, data: Any, headers: Any) -> Any:
    return client.msg_class(
        subject=subject.decode(errors="replace"),
        reply=reply.decode(errors="replace"),
        data=data,
        headers=headers,
        _client=client,
        _sid=sid,
    )


def harden() -> None:
    """Mend the driver, for every client of this process. Once."""
    mended: Any = Client
    taken = mended._process_msg

    async def take(client: Client, sid: int, subject: bytes, *rest: Any) -> None:
        try:
            await taken(client, sid, subject, *rest)
        except Exception:
            log.exception("message_unread subject=%.200r", bytes(subject))

    mended._process_msg, mended._process_headers, mended._build_message = take, _headers, _message
    lines: Any = parser
    lines.MSG_RE = re.compile(rb"\AMSG" + _NAME + rb"([0-9]+)\r\n")
    lines.HMSG_RE = re.compile(rb"\AHMSG" + _NAME + rb"([0-9]+)[ \t]+([0-9]+)\r\n")
