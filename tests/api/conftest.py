"""One running system for all tests of the API, and clients that speak HTTP to it."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.support.machine.waiting import PATIENCE_S

FOREIGN = ("LUCID_", "NATS_", "JWT_", "RATE_", "CORS_")


@dataclass(frozen=True)
class Served:
    """A system that `lucid up` runs: where it is served, and its folder."""

    url: str
    data: Path

    def client(self) -> httpx.Client:
        """A client of the administrator."""
        return self.client_with((self.data / "admin.token").read_text().strip())

    def client_with(self, token: str) -> httpx.Client:
        """A client that sends this token; empty: none."""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return httpx.Client(base_url=self.url, timeout=PATIENCE_S, headers=headers)

    def token(self, role: str, subject: str = "developer") -> str:
        """A token of one role."""
        return self.lucid("token", "--role", role, "--subject", subject).stdout.strip()

    def lucid(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """One command beside the running system."""
        return subprocess.run(
            [sys.executable, "-P", "-m", "streams.cli.main", *arguments],
            env=environment(self.data),
            cwd=self.data.parent,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
        )


@contextmanager
def system(data: Path, **more: str) -> Iterator[Served]:
    """A `lucid up` of its own, with this environment."""
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "streams.cli.main", "up", "--json"],
        env=environment(data) | {"SESSION_API_PORT": "0"} | more,
        cwd=data.parent,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        yield Served(json.loads(process.stdout.readline())["api_url"], data)
    finally:
        process.terminate()
        assert process.wait(PATIENCE_S) == 0


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One `lucid up` for all tests of this room."""
    with system(tmp_path_factory.mktemp("served") / "data") as running:
        yield running


@pytest.fixture
def client(served: Served) -> Iterator[httpx.Client]:
    with served.client() as client:
        yield client


def environment(data: Path) -> dict[str, str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
    return {**clean, "LUCID_DATA": str(data), "NO_COLOR": "1"}
