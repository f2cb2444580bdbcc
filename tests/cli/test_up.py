"""`lucid up` beside people who tidy up, and beside another `lucid up`."""

import json
import shutil
import socket
from pathlib import Path

import httpx
import psutil
import pytest

from tests.support.machine.ports import free_port
from tests.support.machine.waiting import PATIENCE_S
from tests.support.program.up_process import Lucid, end, met, up


def test_whoever_tidies_up_a_folder_neither_hides_nor_doubles_its_owner(lucid: Lucid, tmp_path: Path) -> None:
    """Breaks: a second `up` gets in, and takes away how the first one is reached."""
    data = tmp_path / "data"
    first = up(lucid, data)
    for path in data.rglob("lock"):
        path.unlink()
    second = lucid("up", data=data)
    assert (second.returncode, "[datadir.locked]" in second.stderr) == (7, True), second.stderr
    assert lucid("sessions", "list", data=data).returncode == 0
    (data / "run.json").unlink()
    met((data / "run.json").exists)
    assert lucid("sessions", "list", data=data).returncode == 0
    assert end(first) == 0
    assert not (data / "run.json").exists()


def test_of_two_that_start_at_the_same_moment_one_runs(lucid: Lucid, tmp_path: Path) -> None:
    """Breaks: both run on one store; or none does, and each says that the other one is there."""
    data = tmp_path / "data"
    both = [lucid.start("up", "--json", data=data) for _ in range(2)]
    met(lambda: any(process.poll() is not None for process in both))
    loser = next(process for process in both if process.poll() is not None)
    winner = next(process for process in both if process is not loser)
    assert loser.returncode == 7
    assert json.loads(loser.communicate()[0])["code"] == "datadir.locked"
    assert json.loads(winner.stdout.readline())["status"] == "running"
    assert lucid("sessions", "list", data=data).returncode == 0
    assert end(winner) == 0


def api_url(data: Path) -> str:
    return str(json.loads((data / "run.json").read_bytes())["api_url"])


def test_two_systems_that_start_at_the_same_moment_have_a_port_each(lucid: Lucid, tmp_path: Path) -> None:
    """Breaks: the second one tells its people the address of the first, and its own API never runs."""
    folders = [tmp_path / "one", tmp_path / "two"]
    wanted = str(free_port())
    both = [lucid.start("up", "--json", data=data, SESSION_API_PORT=wanted) for data in folders]
    try:
        for process in both:
            assert json.loads(process.stdout.readline())["status"] == "running"
        urls = [api_url(data) for data in folders]
        assert len(set(urls)) == 2
        assert any(url.endswith(f":{wanted}") for url in urls)
        for url in urls:
            assert httpx.get(f"{url}/health", timeout=PATIENCE_S).status_code == 200
    finally:
        assert [end(process) for process in both] == [0, 0]


def test_the_port_stays_with_its_system_while_its_service_is_started_again(
    lucid: Lucid, tmp_path: Path
) -> None:
    """Breaks: another program takes the port, and gets the tokens of all who ask."""
    data = tmp_path / "data"
    process = up(lucid, data, SESSION_API_PORT=str(free_port()))
    serving = next(one for one in psutil.Process(process.pid).children() if "http" in one.cmdline())
    serving.kill()
    serving.wait(PATIENCE_S)
    port = int(api_url(data).rpartition(":")[2])
    with pytest.raises(OSError, match="in use"):
        socket.create_server(("127.0.0.1", port)).close()
    assert httpx.get(f"{api_url(data)}/health", timeout=PATIENCE_S).status_code == 200
    assert end(process) == 0


@pytest.mark.parametrize("replaced", [False, True])
def test_a_system_whose_folder_is_gone_ends_and_says_so(lucid: Lucid, tmp_path: Path, replaced: bool) -> None:
    """Breaks: it takes recordings into a folder that no name leads to."""
    data = tmp_path / "data"
    process = up(lucid, data)
    data.rename(tmp_path / "aside")
    if replaced:
        data.mkdir()
    else:
        shutil.rmtree(tmp_path / "aside", ignore_errors=True)  # what runs there makes new files still
    _, said = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 7, said
    assert "Traceback" not in said
    assert not (data / "run.json").exists()


def test_a_note_of_an_owner_that_was_killed_leads_nowhere(lucid: Lucid, tmp_path: Path) -> None:
    """Breaks: a verb tells the password to whoever has the port, or the pid, of an `up` that was killed."""
    data = tmp_path / "data"
    process = up(lucid, data)
    process.kill()
    process.communicate()
    assert (data / "run.json").exists()
    said = lucid("sessions", "list", data=data)
    assert (said.returncode, "[server.absent]" in said.stderr) == (7, True), said.stderr
