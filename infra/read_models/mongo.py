"""Stores the read models in MongoDB, through motor. This module and mongo_query.py alone know it.

    views               {_id: "place", active, building, last}, and {_id: number, source, position}
    sessions_<number>   the documents of one generation, by the session's number

1. A document is replaced only by a newer one: its update names its number and a lower sequence. Where the
   stored one is as new, MongoDB tries to insert a second one, and refuses it as a duplicate.
2. The position is stored after the documents. A crash between them brings the same documents again.
3. The numbers of generations are never used twice. A writer that was late may make the collection of a former
   generation anew: it looks after each write, and drops it.
4. An outage is Unavailable after a few seconds. Calls wait in threads of motor, never on the event loop.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, fields
from typing import Any, NamedTuple

from motor.motor_asyncio import AsyncIOMotorClient, AsyncIOMotorCollection
from pymongo import ASCENDING, IndexModel, ReturnDocument, UpdateOne
from pymongo.errors import BulkWriteError, DuplicateKeyError, InvalidURI, OperationFailure, PyMongoError

from infra.read_models import mongo_query
from infra.read_models.generations import given_up
from schemas.errors import Misuse, NoSpace, Unavailable
from schemas.ports.read_models import (
    Generation,
    SessionDocument,
    SessionFilter,
    SessionPage,
    SessionQuery,
    StateTotals,
)

DATABASE = "lucid"
"""Unless the URL names one."""
SELECT_MS, CONNECT_MS, CALL_MS = 3_000, 5_000, 20_000
"""How long a call waits for a server, for a connection, and at all."""
BULK = 500
"""Documents of one write."""
DUPLICATE, DISK_FULL = 11_000, 14_031
"""Codes of MongoDB."""
INDEXES = (
    *("state", "host", "opened_by", "tokens"),
    *("created_us", "moved_us", "started_us", "plain_bytes", "duration_us"),
)
FIELDS = tuple(one.name for one in fields(SessionDocument) if one.name != "number")

Document = dict[str, Any]


class _Place(NamedTuple):
    """The generations that count; 0: there is none."""

    active: int
    building: int
    known: Mapping[int, tuple[Generation, str]]
    """Every generation by its number, with its source."""


class MongoViews:
    """The port Views. Making the object connects to nothing; used from one event loop."""

    kind = "MongoDB"

    def __init__(self, url: str, *, select_ms: int = SELECT_MS) -> None:
        """url: with its credentials, which no error repeats."""
        self._url, self._select_ms = url, select_ms
        self._client: AsyncIOMotorClient[Document] | None = None

    async def begin(self, source: str) -> Generation:
        async with self._translated():
            while True:
                place = await self._place()
                found = place.known.get(place.active)
                if found is not None and found[1] == source:
                    return found[0]
                made = await self._make(source)
                change = {"$set": {"active": made.number, "building": 0}}
                done = await self._views.update_one({"_id": "place", "active": place.active}, change)
                await self._drop_former()
                if done.matched_count:
                    return made

    async def apply(self, generation: int, documents: Sequence[SessionDocument], position: int) -> None:
        async with self._translated():
            await self._require(generation)
            sessions = self._sessions(generation)
            for start in range(0, len(documents), BULK):
                try:
                    changes = [_change(one) for one in documents[start : start + BULK]]
                    await sessions.bulk_write(changes, ordered=False)
                except BulkWriteError as error:
                    if any(one["code"] != DUPLICATE for one in (error.details or {})["writeErrors"]):
                        raise
            await self._require(generation)
            change = {"$max": {"position": position}}
            if not (await self._views.update_one({"_id": generation}, change)).matched_count:
                raise given_up(generation)

    async def active(self) -> Generation:
        async with self._translated():
            return _active(await self._place())

    async def sessions(self, query: SessionQuery) -> SessionPage:
        async with self._translated():
            while True:
                before = _active(await self._place())
                if not before.number:
                    return SessionPage([], before)
                asked = self._sessions(before.number).find(mongo_query.page_condition(query))
                asked = asked.sort(mongo_query.order(query)).limit(query.limit)
                found = await asked.to_list(query.limit)
                if _active(await self._place()).number == before.number:
                    return SessionPage([_read(one) for one in found], before)
                # Another generation became active, and this one may have been dropped meanwhile.

    async def session(self, session: str) -> SessionDocument | None:
        async with self._translated():
            if not (generation := _active(await self._place()).number):
                return None
            found = await self._sessions(generation).find_one({"session": session}, sort=[("_id", -1)])
            return _read(found) if found else None

    async def totals(self, wanted: SessionFilter) -> list[StateTotals]:
        async with self._translated():
            if not (generation := _active(await self._place()).number):
                return []
            found = await self._sessions(generation).aggregate(mongo_query.totals(wanted)).to_list(None)
            names = ("_id", "sessions", *mongo_query.SUMS)
            return [StateTotals(*(_plain(one[name]) for name in names)) for one in found]

    async def count(self) -> int:
        async with self._translated():
            generation = _active(await self._place()).number
            return await self._sessions(generation).count_documents({}) if generation else 0

    async def build(self, source: str) -> Generation:
        async with self._translated():
            await self._place()
            made = await self._make(source)
            await self._views.update_one({"_id": "place"}, {"$set": {"building": made.number}})
            await self._drop_former()
            return made

    async def switch(self, generation: int) -> bool:
        async with self._translated():
            while True:
                place = await self._place()
                built, active = place.known.get(generation), place.known.get(place.active)
                if place.active == generation:
                    return True
                if place.building != generation or built is None:
                    raise given_up(generation)
                if active is not None and active[0].position > built[0].position and active[1] == built[1]:
                    return False
                known = {"_id": "place", "active": place.active, "building": generation}
                change = {"$set": {"active": generation, "building": 0}}
                if (await self._views.update_one(known, change)).matched_count:
                    # A crash here leaves the former generation; the next one that begins drops it.
                    await self._drop_former()
                    return True

    async def close(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None

    @property
    def _database(self) -> Any:
        if self._client is None:
            try:
                self._client = AsyncIOMotorClient(
                    self._url,
                    serverSelectionTimeoutMS=self._select_ms,
                    connectTimeoutMS=CONNECT_MS,
                    timeoutMS=CALL_MS,
                    appname="lucid",
                )
            except InvalidURI:
                raise Misuse(
                    "MONGODB_URL is not a URL of MongoDB",
                    code="config.mongodb_url",
                    hint="mongodb://USER:PASSWORD@HOST:PORT/DATABASE",
                ) from None
        return self._client.get_default_database(DATABASE)

    @property
    def _views(self) -> "AsyncIOMotorCollection[Document]":
        return self._database["views"]  # type: ignore[no-any-return]

    def _sessions(self, generation: int) -> "AsyncIOMotorCollection[Document]":
        return self._database[f"sessions_{generation}"]  # type: ignore[no-any-return]

    async def _place(self) -> _Place:
        while True:
            found = {one["_id"]: one for one in await self._views.find({}).to_list(None)}
            if place := found.pop("place", None):
                known = {
                    int(number): (Generation(int(number), int(one["position"])), one["source"])
                    for number, one in found.items()
                }
                return _Place(int(place["active"]), int(place["building"]), known)
            try:
                await self._views.insert_one({"_id": "place", "active": 0, "building": 0, "last": 0})
            except DuplicateKeyError:
                continue  # another process made it

    async def _make(self, source: str) -> Generation:
        place = await self._views.find_one_and_update(
            {"_id": "place"}, {"$inc": {"last": 1}}, return_document=ReturnDocument.AFTER
        )
        number = int(place["last"])
        await self._views.insert_one({"_id": number, "source": source, "position": 0})
        indexes = [IndexModel([(name, ASCENDING), ("_id", ASCENDING)]) for name in INDEXES]
        await self._sessions(number).create_indexes([*indexes, IndexModel([("session", ASCENDING)])])
        return Generation(number, 0)

    async def _require(self, generation: int) -> None:
        """Raises Conflict (views.generation)."""
        place = await self._place()
        if generation not in (place.active, place.building):
            await self._sessions(generation).drop()
            raise given_up(generation)

    async def _drop_former(self) -> None:
        """Drop every generation that neither answers nor is being built. A later one may be in the making."""
        place = await self._place()
        counting = (place.active, place.building)
        for number in [one for one in place.known if one < max(counting) and one not in counting]:
            await self._sessions(number).drop()
            await self._views.delete_one({"_id": number})

    @asynccontextmanager
    async def _translated(self) -> AsyncIterator[None]:
        try:
            yield
        except PyMongoError as error:
            if isinstance(error, OperationFailure) and error.code == DISK_FULL:
                raise NoSpace("the disk of MongoDB is full", code="disk.full", hint="free space") from None
            text = str(error).partition(", Timeout:")[0][:200]
            raise Unavailable(
                f"MongoDB does not answer: {text}",
                code="views.failed",
                hint="check MONGODB_URL and its server",
            ) from None


def _active(place: _Place) -> Generation:
    found = place.known.get(place.active)
    return found[0] if found else Generation()


def _change(document: SessionDocument) -> UpdateOne:
    values = asdict(document)
    number = values.pop("number")
    values["tokens"], values["shown"] = list(document.tokens), dict(document.shown)
    return UpdateOne({"_id": number, "seq": {"$lt": document.seq}}, {"$set": values}, upsert=True)


def _read(found: Document) -> SessionDocument:
    values = {name: _plain(found[name]) for name in FIELDS}
    values["tokens"] = tuple(values["tokens"])
    return SessionDocument(number=int(found["_id"]), **values)


def _plain(value: Any) -> Any:
    """The value without the types of BSON: Int64 and Binary are subclasses of int and bytes."""
    match value:
        case bool() | str() | None:
            return value
        case int():
            return int(value)
        case bytes():
            return bytes(value)
        case dict():
            return {name: _plain(member) for name, member in value.items()}
        case list():
            return [_plain(one) for one in value]
    return value
