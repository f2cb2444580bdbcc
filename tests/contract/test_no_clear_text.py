"""The files of both stores hold no personal field, neither while a session lives nor afterwards."""

import secrets
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from pymongo import MongoClient

from infra.jetstream import Jet
from schemas.events.details import Details, RdpConfig
from schemas.ports.read_models import SessionDocument, SessionQuery, Views
from streams.event_store import topology
from tests.support.servers.described import Described
from tests.support.servers.secantus import Secantus
from tests.support.servers.stores import STORES, Opened, store


class Store:
    """A store, and its files."""

    def __init__(self, opened: Opened, folder: Path, url: str) -> None:
        self.opened, self._folder, self._url = opened, folder, url

    def found(self, *texts: str) -> list[tuple[str, Path]]:
        """Each text that is found in a file, in an encoding that databases use."""
        if self._url:
            with MongoClient(self._url) as client:
                client.admin.command("fsync")
        files = [(path, path.read_bytes()) for path in self._folder.rglob("*") if path.is_file()]
        assert files
        return [(text, path) for path, content in files for text in texts if _holds(content, text)]


def _holds(content: bytes, text: str) -> bool:
    return any(text.encode(encoding) in content for encoding in ("utf-8", "utf-16-le", "utf-16-be"))


@pytest.fixture(params=STORES)
def held(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    kind, folder = str(request.param), tmp_path / "store"
    folder.mkdir()
    if kind == "sqlite":
        yield Store(store(kind, folder, ""), folder, "")
        return
    server: Secantus = request.getfixturevalue("mongodb")
    yield Store(store(kind, folder, server.url), server.folder, server.url)


def word() -> str:
    """A text that no compression finds twice."""
    return secrets.token_hex(12)


async def test_no_file_of_a_store_holds_a_personal_field(jet: Jet, tmp_path: Path, held: Store) -> None:
    """Breaks: a destroyed session's owner is read from the database, its journal or a backup of both."""
    await topology.declare(jet, 2 << 30)
    world = Described(jet, tmp_path)
    first, second = (
        Details(
            name=word(),
            description=word(),
            owner=word(),
            rdp_config=RdpConfig(host=word(), username=word(), domain=word()),
            project=word(),
            environment=word(),
            tags=(word(), word()),
        )
        for _ in range(2)
    )
    texts = [text for fields in (first, second) for text in texts_of(fields)]
    assert len(texts) == 20
    await world.open("till-1", first)
    views = held.opened()
    async with world.projected(views) as listed:
        await world.change("till-1", second)
        page = await listed.page({"owner": second.owner, "details": True})
        assert page["sessions"][0]["details"]["name"] == second.name
        assert held.found(*texts) == []
        await world.destroy("till-1")
        assert not (await listed.page({"owner": second.owner}))["sessions"]
        await world.rebuild(held.opened())
        assert held.found(*texts) == []
        (left,) = (await views.sessions(SessionQuery())).documents
        await clear_text_is_found(views, held, left)


def texts_of(fields: Details) -> list[str]:
    rdp = fields.rdp_config
    assert rdp is not None
    return [
        *(fields.name, fields.description, fields.owner, fields.project, fields.environment, *fields.tags),
        *(rdp.host, rdp.username, rdp.domain),
    ]


async def clear_text_is_found(views: Views, held: Store, document: SessionDocument) -> None:
    """The search finds a text that is stored in the clear: so it would find a personal field."""
    text = word()
    generation = await views.begin("clear")
    await views.apply(generation.number, [replace(document, shown={**document.shown, "name": text})], 1)
    assert held.found(text)
