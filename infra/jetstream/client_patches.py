"""Patches nats-py so that a malformed subject or header block cannot end its read loop.

1. The server stores a message under any name without blanks and line ends, with any header block. Unpatched
   nats-py stops reading, in silence, at one that it cannot parse. A stored one comes again after each
   restart.
2. Bytes of a subject that are no UTF-8 become U+FFFD. No subject of ours has that letter, so readers refuse
   it.
3. It patches private attributes of the class (FastStream makes clients of its own); nats-py is pinned for
   that.
"""

import re
from typing import Any

from nats.aio.client import Client
from nats.protocol import parser

from infra.jetstream import decode, direct_callbacks
from schemas.config.logs import logger

_NAME = rb"[ \t]+([^ \t\r\n]+)[ \t]+([0-9]+)[ \t]+(([^ \t\r\n]+)[ \t]+)?"
"""Subject, subscription, and a reply with the blank after it."""

log = logger("lucid.nats")


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


def patch_nats_py() -> None:
    """Patch the class, for every client of this process. Call it once."""
    patched: Any = Client
    taken = patched._process_msg

    async def take(client: Client, sid: int, subject: bytes, reply: bytes, data: Any, block: Any) -> None:
        direct = direct_callbacks.taker(client, sid)
        if direct is not None:
            direct_callbacks.deliver(client, direct, (sid, subject, reply), data, block)
            return
        try:
            await taken(client, sid, subject, reply, data, block)
        except Exception:
            log.exception("message_unread", subject=str(bytes(subject))[:200])

    patched._process_msg, patched._process_headers, patched._build_message = take, _headers, _message
    lines: Any = parser
    lines.MSG_RE = re.compile(rb"\AMSG" + _NAME + rb"([0-9]+)\r\n")
    lines.HMSG_RE = re.compile(rb"\AHMSG" + _NAME + rb"([0-9]+)[ \t]+([0-9]+)\r\n")
