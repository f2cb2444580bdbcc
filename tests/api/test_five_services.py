"""The five services as five processes, with a NATS server and a MongoDB that are not theirs."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx

from infra.nats_server.server import NatsServer
from tests.api.test_documented_session import documented, typed
from tests.support.machine.ports import free_port
from tests.support.machine.waiting import PATIENCE_S
from tests.support.servers.secantus import Secantus

ROLES = ("recorder", "pipeline", "processor", "storage", "api")


@contextmanager
def serving(role: str, port: int, environment: dict[str, str]) -> Iterator[str]:
    """One role in a process of its own; its URL, once it answers."""
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "streams.cli.main", "serve", role, "--port", str(port)],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    )
    url, end_s = f"http://127.0.0.1:{port}", time.monotonic() + PATIENCE_S
    try:
        while True:
            try:
                assert httpx.get(f"{url}/health").status_code == 200
                break
            except httpx.TransportError:
                assert process.poll() is None, process.communicate()[1]
                assert time.monotonic() < end_s
                time.sleep(0.05)
        yield url
    finally:
        process.terminate()
        _, said = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 0, said


async def test_the_documented_session_runs_on_five_separate_services(
    server: NatsServer, mongodb: Secantus, tmp_path: Path
) -> None:
    """Breaks: the services work only where one process serves them all."""
    data = tmp_path / "data"
    clean = {name: text for name, text in os.environ.items() if not name.startswith(("LUCID_", "NATS_"))}
    environment = {**clean, "NATS_URL": server.url, "LUCID_DATA": str(data), "NO_COLOR": "1"}
    environment["MONGODB_URL"] = f"{mongodb.url}/five_services"
    environment["NATS_MAX_STORAGE_MB"] = "1024"  # the test server has less than the default
    with ExitStack() as running:
        urls = {role: running.enter_context(serving(role, free_port(), environment)) for role in ROLES}
        first = [
            f"API={urls['api']} PIPELINE={urls['pipeline']}",
            'auth="Authorization: Bearer $(cat "$data/admin.token")"',
            'json="Content-Type: application/json"',
        ]
        lines = [*first, *documented()[1:]]
        assert "october-1 is true" in typed(lines, tmp_path, data, NATS_URL=server.url)
