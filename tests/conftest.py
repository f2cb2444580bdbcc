"""Fixtures that several folders share: a real nats-server in a folder of its own, and a connection to it."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from unittest.mock import patch

import pytest
import uvloop
from hypothesis import HealthCheck, settings

from infra.jetstream import Jet, connect
from infra.nats_server.server import NatsServer
from streams.event_store import topology
from tests.support.machine.waiting import PATIENCE_S
from tests.support.servers.secantus import Secantus, secantus

pytest_plugins = ["tests.support.kept_logs.log_search"]
# how long an example takes says more of the machine than of us
settings.register_profile(
    "untimed", settings.default, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("untimed")
# systems that tests start leave damaged files as they are, but for the tests of the scrub itself
os.environ["SCRUB_MB_PER_S"] = "0"


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Tests run on the event loop that the product runs on."""
    return {"uvloop": uvloop.new_event_loop}


FILES = {
    # kills, faults, determinism
    (1, 4, 16): (
        *("test_kills", "test_every_effect", "test_rare_effects", "test_conductor_faults"),
        *("test_determinism", "test_one_history", "test_catching_up", "test_changing_groups"),
    ),
    # the same ground, with one number in each run of all tests; `just test-shards` gives them every number
    (1,): (
        *("test_recording", "test_full_stream", "test_runner", "test_broken_sources"),
        *("test_ended_by_its_host", "test_refused_finals", "test_restart"),
    ),
    (4,): (
        *("test_live_prefix", "test_flooded_aborts", "test_many_sessions", "test_erasure"),
        *("test_hostile_hosts", "test_interrupted", "test_host_watch", "test_late_server"),
    ),
    (16,): (
        *("test_source_purge", "test_from_outside", "test_conducted", "test_soak", "test_worker_groups"),
    ),
}
"""How many recording streams the installations of a test file have; of several numbers, one after the other.

A file that is not listed has as many as by default, or its tests say it themselves.
"""
SHARDS = {name: counts for counts, names in FILES.items() for name in names}
TEST_SHARDS = int(os.environ.get("TEST_SHARDS", "0"))
"""Unless 0: the files of SHARDS alone are run, all with this number."""


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    unlisted = collection_path.name.startswith("test_") and collection_path.stem not in SHARDS
    return True if TEST_SHARDS and unlisted else None


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    listed = SHARDS.get(metafunc.module.__name__.rsplit(".", 1)[-1])
    if listed:
        counts = (TEST_SHARDS,) if TEST_SHARDS else listed
        names = [f"SHARDS={count}" for count in counts]
        metafunc.parametrize("shards", counts, indirect=True, scope="module", ids=names)


@pytest.fixture(scope="module", autouse=True)
def shards(request: pytest.FixtureRequest) -> Iterator[int]:
    """The number of recording streams of new installations, in this process and in those that it starts.

    A fixture of a module with an installation must ask for it: the number changes within the module.
    """
    count = getattr(request, "param", 0)
    if not count:
        yield topology.DEFAULT_SHARDS
        return
    with patch.object(topology, "DEFAULT_SHARDS", count), patch.dict(os.environ, SHARDS=str(count)):
        yield count


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[NatsServer]:
    """A server with 4 GiB of promised file space, ended after the test."""
    server = NatsServer(tmp_path / "nats", max_file=4 << 30)
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def jet(server: NatsServer) -> AsyncIterator[Jet]:
    """A connection to `server`; streams are not declared."""
    jet = await connect(server.url, name="test", timeout_s=PATIENCE_S)
    yield jet
    await jet.close()


@pytest.fixture(scope="session")
def mongodb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secantus]:
    """A server of MongoDB's wire protocol for all tests of this process; each test has its own database."""
    folder = tmp_path_factory.mktemp("mongodb") / "data"
    with secantus(folder) as server:
        yield server


@pytest.fixture
def may_come_back(server: NatsServer, monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """A server that ends is not started again before this is set."""
    child = server._child
    assert child is not None
    allowed, spawn = asyncio.Event(), child._spawn

    async def held_back() -> None:
        await allowed.wait()
        await spawn()

    monkeypatch.setattr(child, "_spawn", held_back)
    return allowed
