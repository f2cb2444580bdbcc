"""The context of a trace as it travels in headers: a W3C traceparent.

    00-<trace id, 32 hex>-<span id, 16 hex>-<flags, 2 hex>      flag 1: the trace is kept (sampled)

1. An ill-formed text is no context. It never reaches a header of ours.
2. The trace of a session has the session's uid as its id, so it is found without a search.
"""

import re
from typing import NamedTuple

from schemas.format.digest import d

FORM = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})")
SAMPLED = 1


class TraceContext(NamedTuple):
    """One span, and whether its trace is kept."""

    trace_id: str
    span_id: str
    sampled: bool

    @classmethod
    def parse(cls, text: str) -> "TraceContext | None":
        """Return the context in a traceparent; None: there is none."""
        found = FORM.fullmatch(text)
        if found is None:
            return None
        return cls(found[1], found[2], bool(int(found[3], 16) & SAMPLED))

    def __str__(self) -> str:
        return f"00-{self.trace_id}-{self.span_id}-{'01' if self.sampled else '00'}"


SESSION_KEY = "session"
"""The key of the span that begins the trace of a session. The id of that trace is the session's uid."""


FIRST_KEY = "first"
"""The key of the span that begins the trace of an expected chunk: that of its first fragment."""


def stretch_trace(uid: bytes, number: int) -> bytes:
    """Return the trace id, 16 bytes, that a host gives to its estimate of a chunk."""
    return d("lucid v1 trace stretch", uid + number.to_bytes(8, "little"))[:16]


def chunk_trace(uid: bytes, index: int) -> bytes:
    """Return the trace id, 16 bytes, of a chunk for which no host began a trace."""
    return d("lucid v1 trace chunk", uid + index.to_bytes(8, "little"))[:16]


def begins(context: TraceContext) -> bool:
    """Whether the context is that of an expected chunk's first fragment."""
    return context.span_id == span_of(context.trace_id, FIRST_KEY)


def span_of(trace_id: str, key: str) -> str:
    """Return the span id, 16 hex digits, of the span with this key in its trace."""
    return d("lucid v1 trace span", f"{trace_id} {key}".encode())[:8].hex()
