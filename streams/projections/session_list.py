"""Answers lists of sessions from the read models: filters, orders, pages, sums.

1. A cursor names the last session of a page, and the next page begins behind it. In the order of creation
   pages are complete and disjoint: sessions created meanwhile have higher numbers.
2. Every answer says how many events of the log the read models do not contain yet.
3. Personal fields are opened for the sessions of one page, with the key of each.
"""

import asyncio
import time
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import to_json

from handlers.crypto.blind_index import BlindIndex
from handlers.views.cursor import place_of, read_cursor, write_cursor
from schemas import subjects
from schemas.ports import Jet
from schemas.ports.read_models import (
    Generation,
    Place,
    SessionDocument,
    SessionFilter,
    SessionPage,
    SessionQuery,
    Sort,
    Views,
)
from schemas.types import TimeUs
from streams.keys.keystore import KeyStore
from streams.projections.live_counts import live_counts
from streams.projections.proven_times import ProvenTimes
from streams.projections.read_details import read_details

PAGE_MOST = 500
"""Sessions in one answer: about 1,000 bytes each, and a message holds 1 MiB."""
PAGE_MOST_BYTES = 768 << 10
NEAR_EVENTS, NEAR_S = 2000, 2.0
"""A page waits up to NEAR_S for read models that lack at most NEAR_EVENTS events."""
LOOK_S = 0.005


class Asked(BaseModel):
    """A filter of sessions, as requests name it."""

    model_config = ConfigDict(
        frozen=True, extra="ignore", hide_input_in_errors=True
    )  # a client names a cause, too

    state: str | tuple[str, ...] = ()
    """One or several."""
    host: str = Field(default="", max_length=100)
    opened_by: str = Field(default="", max_length=100)
    """Label of a person: only sessions that the person opened."""
    text: str = Field(default="", max_length=100)
    from_us: TimeUs | None = None
    before_us: TimeUs | None = None
    sealed: bool | None = None
    owner: str = Field(default="", max_length=200)
    """The owner that the details name."""
    tags: tuple[str, ...] = Field(default=(), max_length=10)
    project: str = Field(default="", max_length=100)
    environment: str = Field(default="", max_length=100)
    name: str = Field(default="", max_length=200)
    """Words of the name, or beginnings of at least three letters."""


class PageAsked(Asked):
    """The body of the command `list`."""

    sort: Sort = Sort.CREATED
    descending: bool = True
    cursor: str = Field(default="", max_length=100)
    after: int = Field(default=0, ge=0, lt=2**53)
    """Instead of a cursor: only lower numbers."""
    limit: int = Field(default=100, ge=1, le=PAGE_MOST)
    details: bool = False
    """Open the personal fields, too."""


class SessionList:
    """One for each process that answers lists."""

    def __init__(
        self,
        jet: Jet,
        views: Views,
        keys: KeyStore,
        index: BlindIndex,
        proven: ProvenTimes | None = None,
    ) -> None:
        """proven: None: no row says when its session was proven."""
        self._jet, self._views, self._keys, self._index = jet, views, keys, index
        self._proven = proven

    async def is_built(self) -> bool:
        """Whether this process sees read models at all."""
        return bool((await self._views.active()).number)

    async def page(self, body: dict[str, Any]) -> dict[str, Any]:
        """One page, newest first unless it says otherwise.

        In the answer, `cursor` is that of the next page; empty: there is none. `next` is the same as a number
        for `after`. Raises Misuse (list.cursor).
        """
        asked = PageAsked.model_validate(body)
        found, behind = await self._current(self._query(asked))
        shown: list[dict[str, Any]] = []
        size = 0
        for one in await self._shown(found.documents[: asked.limit], asked.details):
            size += len(to_json(one))
            if shown and size > PAGE_MOST_BYTES:  # personal fields may be long, and a message holds 1 MiB
                break
            shown.append(one)
        last = found.documents[len(shown) - 1] if len(shown) < len(found.documents) else None
        return {
            "sessions": shown,
            "cursor": self._cursor(asked, last) if last else "",
            "next": last.number if last else 0,
            "behind": behind,
        }

    async def totals(self, body: dict[str, Any]) -> dict[str, Any]:
        """The sums over all sessions that fit, and by state."""
        asked = Asked.model_validate(body)
        by_state = await self._views.totals(self._filter(asked))
        members = ("sessions", "chunks", "plain_bytes", "sealed_bytes", "duration_us")
        return {
            **{member: sum(getattr(one, member) for one in by_state) for member in members},
            "states": {one.state: {member: getattr(one, member) for member in members} for one in by_state},
            "behind": await self._behind(await self._views.active()),
        }

    def _query(self, asked: PageAsked) -> SessionQuery:
        after = Place(asked.after, asked.after) if asked.after else None
        if asked.cursor:
            after = read_cursor(self._index.cursor_key, asked.sort, asked.descending, asked.cursor)
        return SessionQuery(self._filter(asked), asked.sort, asked.descending, after, asked.limit + 1)

    def _filter(self, asked: Asked) -> SessionFilter:
        index = self._index
        tokens = {index.tagged(tag) for tag in asked.tags} | {*index.named(asked.name)}
        if asked.owner:
            tokens.add(index.owned_by(asked.owner))
        if asked.project:
            tokens.add(index.of_project(asked.project))
        if asked.environment:
            tokens.add(index.in_environment(asked.environment))
        states = (asked.state,) if isinstance(asked.state, str) else asked.state
        return SessionFilter(
            states=tuple(state for state in states if state),
            host=asked.host,
            opened_by=asked.opened_by,
            text=asked.text,
            from_us=asked.from_us,
            before_us=asked.before_us,
            sealed=asked.sealed,
            tokens=tuple(sorted(tokens)),
        )

    def _cursor(self, asked: PageAsked, last: SessionDocument) -> str:
        return write_cursor(self._index.cursor_key, asked.sort, asked.descending, place_of(last, asked.sort))

    async def _current(self, query: SessionQuery) -> tuple[SessionPage, int]:
        """The page, and how many events the read models lack. If these are few, it waits for them."""
        newest = await self._newest()
        end_s = time.monotonic() + NEAR_S
        # The position is a hundred times as cheap as a page.
        while 0 < newest - (await self._views.active()).position <= NEAR_EVENTS:
            if time.monotonic() > end_s:
                break
            await asyncio.sleep(LOOK_S)
        found = await self._views.sessions(query)
        if found.generation.position > newest:
            newest = await self._newest()  # the log went on, or it was restored to an older state
        if found.generation.position > newest:
            found = SessionPage([], Generation())
        return found, newest - found.generation.position

    async def _behind(self, generation: Generation) -> int:
        return max(await self._newest() - generation.position, 0)

    async def _newest(self) -> int:
        """Stream sequence of the log's last event."""
        last = await self._jet.last(subjects.LIFECYCLE, subjects.ALL_LIFECYCLE)
        return last.seq if last else 0

    async def _shown(self, documents: list[SessionDocument], opened: bool) -> list[dict[str, Any]]:
        """The JSON of each document. opened: with the personal fields."""
        live = [one.session for one in documents if one.started_us and not one.sealed]
        counts = await live_counts(self._jet, live)
        shown = [_json(one, counts.get(one.session)) for one in documents]
        if self._proven is not None:
            for one, proven_us in zip(shown, await self._proven.of_rows(documents), strict=True):
                one["proven_us"] = proven_us
        if opened:
            sealed = [(bytes.fromhex(one.shown["uid"]), one.revision, one.details) for one in documents]
            for one, fields in zip(shown, await read_details(self._keys, sealed), strict=True):
                one["details"] = fields.model_dump(mode="json") if fields else None
        return shown


def _json(document: SessionDocument, live: dict[str, int] | None) -> dict[str, Any]:
    return {**document.shown, "live": live} if live else {**document.shown}
