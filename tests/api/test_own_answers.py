"""What the API answers by itself: the command service may stand still, or be away."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.api.conftest import Served, system
from tests.api.test_a_recording import SESSIONS


@pytest.fixture(scope="module")
def still(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A system of its own: its command service is stopped in the middle of tests."""
    with system(tmp_path_factory.mktemp("own") / "data") as running:
        yield running


@contextmanager
def stopped_commands(data: Path) -> Iterator[None]:
    """The command service stands still inside the block."""
    pid = next(pid for pid in processes() if is_conductor(pid, data))
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def processes() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def is_conductor(pid: int, data: Path) -> bool:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        return b"conductor" in words and str(data).encode() in Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return False


def test_sessions_are_shown_and_listed_while_the_command_service_stands_still(still: Served) -> None:
    """Breaks: whoever looks waits for whoever commands, and sees nothing in an outage."""
    with still.client() as client:
        made = client.post(SESSIONS, json={"id": "seen", "name": "Zanzibar shift"}).json()
        while client.get(SESSIONS).json()["behind"]:
            pass
        with stopped_commands(still.data):
            shown = client.get(f"{SESSIONS}/seen")
            listed = client.get(SESSIONS).json()["sessions"]
            sums = client.get(f"{SESSIONS}/statistics").json()
        assert (shown.status_code, shown.json()["name"]) == (200, "Zanzibar shift")
        assert [one["uid"] for one in listed] == [made["uid"]]
        assert sums["sessions"] == 1


def test_a_person_reaches_its_own_sessions_alone_in_answers_of_this_process(still: Served) -> None:
    """Breaks: the API answers by itself, and forgets the table that the command service asks."""
    with still.client() as client, still.client_with(still.token("USER", "somebody")) as other:
        client.post(SESSIONS, json={"id": "not-yours"})
        while client.get(SESSIONS).json()["behind"]:
            pass
        assert other.get(f"{SESSIONS}/not-yours").status_code == 404
        assert other.get(f"{SESSIONS}/not-yours/statistics").status_code == 404
        assert other.get(SESSIONS).json()["sessions"] == []
        assert other.get(f"{SESSIONS}/statistics").json()["sessions"] == 0
