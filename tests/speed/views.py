"""Measures the read models: pages of many sessions, and how fast the log makes them anew.

    just bench-views                       # 100,000 sessions in SQLite; a log of 1,000,000 events
    just bench-views --sessions 10000 --events 0 --mongodb URL

With --mongodb the store is a new database of that server. Prints one JSON object.
"""

import argparse
import asyncio
import json
import math
import secrets
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import uvloop

from handlers.crypto.blind_index import BlindIndex
from infra.jetstream import Jet, connect
from infra.keys.master import Keyring
from infra.keys.session_keys import DiskKeyFiles
from infra.nats_server.server import NatsServer
from infra.read_models.mongo import MongoViews
from infra.read_models.sqlite import SqliteViews
from schemas.ports.read_models import Place, SessionFilter, SessionQuery, Sort, Views
from streams.bench.finished import finished_sessions
from streams.event_store import topology
from streams.keys.keystore import KeyStore
from streams.projections.projector import Documents
from streams.projections.rebuild import Progress, rebuild
from tests.support.servers import view_samples

EVENTS_EACH = 7
"""Events of one finished session."""
TRIES = 50
BATCH, AT_ONCE = 2000, 500


async def pages(views: Views, count: int) -> dict[str, Any]:
    """Milliseconds of each kind of page, and documents stored a second."""
    generation = (await views.begin("bench")).number
    began_s = time.monotonic()
    for start in range(0, count, BATCH):
        made = view_samples.documents(min(BATCH, count - start), seed=start, first=start + 1)
        await views.apply(generation, made, start + BATCH)
    stored = count / (time.monotonic() - began_s)
    index = view_samples.INDEX
    asked = {
        "newest": SessionQuery(),
        "middle": SessionQuery(after=Place(count // 2, count // 2)),
        **{f"by {sort}": SessionQuery(sort=sort) for sort in Sort},
        "a state, by size": SessionQuery(SessionFilter(states=("STOPPED",)), Sort.SIZE),
        "two states, by moved": SessionQuery(SessionFilter(states=("ERROR", "ACTIVE")), Sort.MOVED),
        "a host, by duration": SessionQuery(SessionFilter(host="host-3"), Sort.DURATION),
        "an owner": SessionQuery(SessionFilter(tokens=(index.owned_by("grace"),))),
        "an owner and a word": SessionQuery(
            SessionFilter(tokens=(index.owned_by("grace"), *index.named("eve"))), Sort.MOVED
        ),
        "part of a name": SessionQuery(SessionFilter(text="-00017")),
        "a name that none has": SessionQuery(SessionFilter(text="nobody")),
        "an owner that none is": SessionQuery(SessionFilter(tokens=(index.owned_by("nobody"),))),
    }
    took = {name: await _times(lambda query=query: views.sessions(query)) for name, query in asked.items()}
    took["sums"] = await _times(lambda: views.totals(SessionFilter()))
    took["one session"] = await _times(lambda: views.session("s-desk-00017"))
    return {"documents": count, "stored_a_second": round(stored), "ms": took}


async def _times(ask: Callable[[], Awaitable[object]]) -> dict[str, float]:
    took = []
    for _ in range(TRIES):
        began_s = time.perf_counter()
        await ask()
        took.append((time.perf_counter() - began_s) * 1000)
    took.sort()
    return {"p50": round(took[len(took) // 2], 2), "p99": round(took[math.ceil(0.99 * len(took)) - 1], 2)}


async def rebuilt(views: Views, folder: Path, events: int) -> dict[str, Any]:
    """The rate of a rebuild from a log of so many events."""
    async with _log(folder, events // EVENTS_EACH) as jet:
        keys = KeyStore(DiskKeyFiles(folder / "keys" / "sessions"), Keyring(folder / "keys"))
        documents = Documents(keys, BlindIndex(bytes(32)))
        done = await rebuild(jet, views, documents, _report)
    return {**done._asdict(), "rate": round(done.rate)}


@asynccontextmanager
async def _log(folder: Path, sessions: int) -> AsyncIterator[Jet]:
    server = NatsServer(folder / "nats", max_file=16 << 30, synced=False)
    await server.start()
    jet = await connect(server.url, name="bench", timeout_s=60)
    try:
        await topology.declare(jet, 16 << 30)
        began_s, waiting = time.monotonic(), []
        for lines in finished_sessions(sessions, 1000):
            waiting.append(lines)
            if len(waiting) == AT_ONCE:
                await _write(jet, waiting)
                waiting = []
        await _write(jet, waiting)
        print(f"log written in {time.monotonic() - began_s:.0f} s", file=sys.stderr)
        yield jet
    finally:
        await jet.close()
        await server.stop()


async def _write(jet: Jet, sessions: list[list[tuple[str, bytes]]]) -> None:
    async def one(lines: list[tuple[str, bytes]]) -> None:
        for subject, body in lines:
            if subject.startswith("lucid.lifecycle."):
                await jet.publish(subject, body)

    await asyncio.gather(*map(one, sessions))


def _report(progress: Progress) -> None:
    print(f"\r{progress.events:,} events, {progress.rate:,.0f} a second", end="", file=sys.stderr)


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sessions", type=int, default=100_000)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--mongodb", default="")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="lucid-views-") as temporary:
        folder = Path(temporary)
        database = f"{asked.mongodb}/bench{secrets.token_hex(4)}"
        views: Views = MongoViews(database) if asked.mongodb else SqliteViews(folder / "views.sqlite")
        result: dict[str, Any] = {"store": views.kind}
        if asked.sessions:
            result["pages"] = await pages(views, asked.sessions)
        if asked.events:
            result["rebuild"] = await rebuilt(views, folder, asked.events)
        await views.close()
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    uvloop.run(main())
