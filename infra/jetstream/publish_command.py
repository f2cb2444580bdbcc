"""Builds the command that publishes a message.

1. No subject, header name or header value can end its line: a third party's text would become a command.
2. A large payload stays a piece of its own, so that nothing copies it.
"""

import re
from collections.abc import Mapping
from functools import lru_cache

from nats.errors import BadHeaderError, BadSubjectError

from schemas.buffers import Bytes

SMALL_BYTES = 4096
"""A shorter payload is joined to its command."""
_END = b"\r\n"
_BLANK = re.compile(r"[ \t\r\n]")
_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
"""A token of RFC 7230."""
_LINE_ENDS = str.maketrans("\r\n", "  ")


def publish_command(
    subject: str, data: Bytes, reply: str = "", headers: Mapping[str, str] | None = None
) -> tuple[Bytes, ...]:
    """Return the command in pieces, to be sent one after another.

    Raises BadSubjectError, BadHeaderError (both nats.errors): the name contains what no name may.
    """
    if not subject or _BLANK.search(subject) or _BLANK.search(reply):
        raise BadSubjectError
    if headers:
        block = _block(headers)
        line = f"HPUB {subject} {reply} {len(block)} {len(block) + len(data)}\r\n".encode() + block
    else:
        line = f"PUB {subject} {reply} {len(data)}\r\n".encode()
    return (line, data, _END) if len(data) > SMALL_BYTES else (b"".join((line, data, _END)),)


def _block(headers: Mapping[str, str]) -> bytes:
    lines = [f"{_name(name)}: {_value(text)}\r\n" for name, text in headers.items()]
    return f"NATS/1.0\r\n{''.join(lines)}\r\n".encode()


@lru_cache(maxsize=256)
def _name(name: str) -> str:
    name = name.strip()
    if not _NAME.fullmatch(name):
        raise BadHeaderError(name)
    return name


def _value(text: str) -> str:
    return text.translate(_LINE_ENDS).strip() if "\n" in text or "\r" in text else text.strip()
