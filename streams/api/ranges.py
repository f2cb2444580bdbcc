"""Reads a Range header of one range (RFC 9110 §14): which bytes of a thing a request wants."""

import re
from dataclasses import dataclass

RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})", re.ASCII | re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Span:
    """Bytes `first` to before `end`."""

    first: int
    end: int

    @property
    def size(self) -> int:
        return self.end - self.first


def wanted(header: str | None, size: int) -> Span | None:
    """Return the span; None: the whole thing, as for a header of another form (it may be ignored).

    The last bytes of an empty thing are all of it, and no range names them (§14.1.2).
    Raises ValueError: the range is outside.
    """
    match = RANGE.fullmatch(header.replace(" ", "")) if header else None
    if match is None or not any(match.groups()):
        return None
    first, last = match.groups()
    if not first:
        if not size and int(last):
            return None
        span = Span(max(size - int(last), 0), size)
    else:
        span = Span(int(first), min(int(last) + 1, size) if last else size)
    if last and first and int(last) < int(first):
        return None
    if span.first >= size or not span.size:
        raise ValueError(f"bytes {span.first} to {span.end} of {size}")
    return span
