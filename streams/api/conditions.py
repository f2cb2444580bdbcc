"""Decides which bytes of a thing a request gets, by its conditions and its range.

1. The conditions come first, in the order of RFC 9110 §13.2.2: If-Match, If-None-Match, If-Range with Range.
2. A thing that grows has no ETag: a condition that names one is false, and a range under it is the whole.
3. HEAD gets the headers of a whole GET; it has no range (§14.2).

Source: RFC 9110 §13, §14.
"""

import re
from dataclasses import dataclass, field
from typing import Annotated

from fastapi import Depends, Header, Response
from starlette.datastructures import Headers
from starlette.staticfiles import NotModifiedResponse

from schemas.api.problem import problem_of
from schemas.errors import Misuse, Stale
from streams.api import ranges
from streams.api.problems import respond

OCTETS = "application/octet-stream"
PRIVATE, NO_STORE = "private, no-cache", "no-store"
"""Cache-Control: of sealed bytes, and of bytes that show a recording."""
ETAG = re.compile(r'(?:W/)?"[\x21\x23-\x7e\x80-\xff]*"')

IfMatch = Annotated[
    list[str] | None, Header(alias="If-Match", description="Only if the ETag is one of these: else 412.")
]
IfNoneMatch = Annotated[
    list[str] | None,
    Header(alias="If-None-Match", description="Only if the ETag is none of these: else 304."),
]
RangeHeader = Annotated[
    str | None,
    Header(alias="Range", description="One range of bytes, such as bytes=0-99. Another form is ignored."),
]
IfRange = Annotated[
    str | None,
    Header(alias="If-Range", description="The range counts only with this ETag; else all bytes come."),
]


@dataclass(frozen=True, slots=True)
class Thing:
    """Bytes that can be asked for. etag: empty: they grow. headers: of every answer with them."""

    size: int
    etag: str
    media_type: str = OCTETS
    cache: str = PRIVATE
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Selected:
    """The bytes that an answer has, with its status and headers."""

    span: ranges.Span
    status: int
    headers: dict[str, str]


@dataclass(frozen=True, slots=True)
class Conditions:
    """The conditions and the range of one request."""

    is_head: bool = False
    if_match: str | None = None
    if_none_match: str | None = None
    range: str | None = None
    if_range: str | None = None

    def select(self, thing: Thing) -> Selected | Response:
        """The bytes that are wanted, or an answer without any: to HEAD, 304, 416.

        Raises Stale (request.if_match).
        """
        headers = {"Accept-Ranges": "bytes", "Cache-Control": thing.cache, **thing.headers}
        if thing.etag:
            headers["ETag"] = thing.etag
        if self.if_match is not None and not _names(self.if_match, thing.etag, weakly=False):
            raise Stale(
                f"the ETag of these bytes is {thing.etag or 'none: they grow'}, and If-Match names another",
                code="request.if_match",
                hint="leave it out, or ask for the bytes from the begin",
            )
        if self.if_none_match is not None and _names(self.if_none_match, thing.etag, weakly=True):
            return NotModifiedResponse(Headers(headers))
        if self.is_head:
            headers["Content-Length"] = str(thing.size)
            return Response(None, 200, headers, thing.media_type)
        counts = self.if_range is None or (bool(thing.etag) and self.if_range.strip() == thing.etag)
        try:
            span = ranges.wanted(self.range if counts else None, thing.size)
        except ValueError:
            return outside(thing.size)
        if span is None:
            span, status = ranges.Span(0, thing.size), 200
        else:
            status, total = 206, thing.size if thing.etag else "*"
            headers["Content-Range"] = f"bytes {span.first}-{span.end - 1}/{total}"
        headers["Content-Length"] = str(span.size)
        return Selected(span, status, headers)


def outside(size: int) -> Response:
    """The answer to a range that holds no byte."""
    error = Misuse(f"the range holds no byte of {size}", code="request.range")
    return respond(problem_of(error, 416), {"Content-Range": f"bytes */{size}"})


async def _of_get(
    if_match: IfMatch = None,
    if_none_match: IfNoneMatch = None,
    range_header: RangeHeader = None,
    if_range: IfRange = None,
) -> Conditions:
    return Conditions(False, _joined(if_match), _joined(if_none_match), range_header, if_range)


async def _of_head(if_match: IfMatch = None, if_none_match: IfNoneMatch = None) -> Conditions:
    return Conditions(True, _joined(if_match), _joined(if_none_match))


OfGet = Annotated[Conditions, Depends(_of_get)]
OfHead = Annotated[Conditions, Depends(_of_head)]
"""Parameters of routes."""


def _joined(headers: list[str] | None) -> str | None:
    """Several headers of one name are one list (RFC 9110 §5.3)."""
    return None if headers is None else ", ".join(headers)


def _names(header: str, etag: str, *, weakly: bool) -> bool:
    """Whether a condition names this ETag (RFC 9110 §8.8.3.2). None of ours is weak."""
    if header.strip() == "*":
        return True
    named = ETAG.findall(header)
    return bool(etag) and (etag in named or (weakly and f"W/{etag}" in named))
