"""The recorded list of 300 requests: both stores answer each alike, also after they were lost."""

import json
import shutil
from pathlib import Path
from typing import Any

from pymongo import MongoClient

from infra.jetstream import Jet
from infra.read_models.mongo import MongoViews
from infra.read_models.sqlite import SqliteViews
from schemas.ports.read_models import Views
from streams.event_store import topology
from streams.projections.session_list import SessionList
from tests.support.servers.described import Described
from tests.support.servers.list_requests import ON, fill, requests
from tests.support.servers.secantus import Secantus

REQUESTS = json.loads((Path(__file__).parent.parent / "vectors" / "list_requests.json").read_text())
DATABASE = "answers"


async def answers(listed: SessionList) -> list[Any]:
    """The answer to each request, and the sums of its filter."""
    found: list[Any] = []
    cursor = ""
    for request in REQUESTS:
        body = request | ({"cursor": cursor} if request.get("cursor") == ON else {})
        page = await listed.page(body)
        cursor = page["cursor"]
        found += [page, await listed.totals(request)]
    return found


async def test_both_stores_answer_a_recorded_list_of_requests_alike(
    jet: Jet, tmp_path: Path, mongodb: Secantus
) -> None:
    """Breaks: an installation that moves to MongoDB, or loses its read models, gets other lists."""
    assert len(REQUESTS) == 300
    await topology.declare(jet, 2 << 30)
    world = Described(jet, tmp_path)
    await fill(world)
    path = tmp_path / "read" / "views.sqlite"
    path.parent.mkdir()

    def stores() -> tuple[Views, Views]:
        return SqliteViews(path), MongoViews(f"{mongodb.url}/{DATABASE}")

    async def asked(views: Views) -> list[Any]:
        async with world.projected(views) as listed:
            found = await answers(listed)
        await views.close()
        return found

    first, second = stores()
    wanted = await asked(first)
    pages, sums = wanted[::2], wanted[1::2]
    lengths = {len(page["sessions"]) for page in pages}
    assert len(lengths) > 10, "the requests ask for different things"
    assert sum(bool(one["sessions"]) for one in sums) > 200
    assert await asked(second) == wanted

    shutil.rmtree(path.parent)  # dropped
    path.parent.mkdir()
    with MongoClient[Any](mongodb.url) as client:
        client.drop_database(DATABASE)
    for views in stores():
        assert await asked(views) == wanted

    for views in stores():  # rebuilt beside the active ones
        await world.rebuild(views)
        assert await answers(world.listed(views)) == wanted
        await views.close()


def test_the_requests_are_as_they_were_recorded() -> None:
    """Breaks: the list of requests changes, and with it the promise about both stores."""
    assert requests(300) == REQUESTS
