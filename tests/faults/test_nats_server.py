"""What infra.nats_server.server promises when processes die."""

import asyncio
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from infra.jetstream import Jet, StreamSpec, connect
from infra.nats_server import own_port
from infra.nats_server import server as nats_server
from infra.nats_server.server import NatsServer
from infra.processes import children
from schemas.errors import NoSpace, Unavailable
from tests.support.machine.absent import MAY_MOUNT, absent
from tests.support.machine.waiting import PATIENCE_S, until

LOG = StreamSpec("LOG", ("log.>",), 1 << 20)
SUPERVISE = """
import asyncio, sys
from pathlib import Path
from infra.nats_server.server import NatsServer
async def main():
    server = NatsServer(Path(sys.argv[1]), max_file=1 << 30)
    await server.start()
    print(server.pid, flush=True)
    await asyncio.sleep(60)
asyncio.run(main())
"""


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def command_line(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().decode()


async def gone(pid: int) -> None:
    await until(lambda: not running(pid))


async def test_what_was_acked_is_there_after_a_kill(server: NatsServer, jet: Jet) -> None:
    """Breaks: a host is told that a fragment is safe, and it is not."""
    await jet.declare(LOG)
    acked = [await jet.publish("log.a", str(n).encode()) for n in range(50)]
    os.kill(server.pid, signal.SIGKILL)
    await until(lambda: jet._conn.breaks)
    await jet.wait_up()
    found = [message.seq async for message in jet.read_all("LOG", "log.a")]
    assert found == [ack.seq for ack in acked]
    assert server.starts == 2


async def test_a_restart_keeps_the_port_and_clients_come_back(server: NatsServer, jet: Jet) -> None:
    """Breaks: after a crash every worker has to be restarted by hand."""
    port = server.port
    for _ in range(2):
        await server.restart()
    assert (server.port, server.starts) == (port, 3)
    await jet.wait_up()
    other = await connect(server.url, name="other")
    await other.declare(LOG)
    await other.close()


async def test_nobody_is_given_the_port_of_a_server_that_is_down(
    server: NatsServer, may_come_back: asyncio.Event
) -> None:
    """Breaks: a server that crashed cannot come back, and its clients tell its password to a stranger."""
    os.kill(server.pid, signal.SIGKILL)
    await gone(server.pid)
    with socket.socket() as other, pytest.raises(OSError, match="in use"):
        other.bind(("127.0.0.1", server.port))
    may_come_back.set()
    await until(lambda: server.starts == 2)
    await server.ready()


async def test_the_server_dies_with_its_supervisor(tmp_path: Path) -> None:
    """Breaks: a killed `lucid up` leaves a server behind that holds the data directory."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", SUPERVISE, str(tmp_path), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    pid = int(await process.stdout.readline())
    assert running(pid)
    process.kill()
    await process.wait()
    await gone(pid)


async def test_a_left_over_server_is_ended_before_a_new_one_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks: two servers run on one store directory, which neither of them notices."""
    harmless = children._DIE_WITH_PARENT.replace("prctl(1,", "prctl(1, 0 and")
    supervise = f"import infra.processes.children as s; s._DIE_WITH_PARENT = {harmless!r}\n" + SUPERVISE
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", supervise, str(tmp_path), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    left_over = int(await process.stdout.readline())
    with pytest.raises(Unavailable) as error:
        await NatsServer(tmp_path).start()
    assert error.value.code == "nats.locked"
    assert running(left_over), "a server whose supervisor lives is not ours to end"
    process.kill()
    await process.wait()
    await asyncio.sleep(0.1)
    assert running(left_over)
    server = NatsServer(tmp_path)
    await server.start()
    assert not running(left_over)
    assert server.max_file == 1 << 30
    await server.stop()


async def test_a_server_that_was_stopped_starts_again_on_its_port(tmp_path: Path) -> None:
    """Breaks: the ended connections of the server before it keep its port for a minute."""
    server = NatsServer(tmp_path, max_file=1 << 30)
    await server.start()
    port, jet = server.port, await connect(server.url, name="test")
    await server.stop()
    await jet.close()
    await server.start()
    assert server.port == port
    await server.stop()


async def test_the_address_stays_over_restarts_of_the_whole_system(tmp_path: Path) -> None:
    """Breaks: `lucid up` comes back at another port with another password, and every recorder is stranded."""
    urls = set()
    for _ in range(2):
        server = NatsServer(tmp_path, max_file=1 << 30)  # as another process would
        await server.start()
        urls.add(server.url)
        jet = await connect(server.url, name="test")
        await server.stop()
        await jet.close()
    assert len(urls) == 1
    assert stat.S_IMODE((tmp_path / "access.json").stat().st_mode) == 0o600


async def test_a_port_that_somebody_else_has_now_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks: `lucid up` never starts again because some program was given its port meanwhile."""
    monkeypatch.setattr(own_port, "LINGER_S", 0.1)
    server = NatsServer(tmp_path, max_file=1 << 30)
    await server.start()
    first = server.url
    await server.stop()
    with socket.socket() as other:
        other.bind(("127.0.0.1", server.port))
        other.listen()
        await server.start()
        assert server.port != other.getsockname()[1]
        second = server.url
        await server.stop()
    await server.start()
    assert server.url == second != first
    await server.stop()


@pytest.mark.parametrize("damaged", [b"", b"{}", b"[]", b'{"port": 99999999, "password": "x"}'])
async def test_a_damaged_note_of_the_address_costs_only_the_address(tmp_path: Path, damaged: bytes) -> None:
    """Breaks: half a file after a crash keeps `lucid up` from starting."""
    (tmp_path / "access.json").write_bytes(damaged)
    server = NatsServer(tmp_path, max_file=1 << 30)
    await server.start()
    await (await connect(server.url, name="test")).close()
    await server.stop()


ODD = os.fsdecode(b"m\xc3\xbcller 'q' \"dq\" $HOME {b} [x] back\\slash\nnew,line;#c \xff tab\t")


async def test_a_folder_of_any_name_holds_a_store(tmp_path: Path) -> None:
    """Breaks: in the data folder of a user called müller nothing starts."""
    server = NatsServer(tmp_path / ODD, max_file=1 << 30)
    await server.start()
    jet = await connect(server.url, name="test")
    await jet.declare(LOG)
    await jet.publish("log.a", b"x")
    await jet.close()
    await server.stop()
    assert {"store", "server.log"} <= set(os.listdir(server.data))
    assert os.listdir(tmp_path) == [ODD]


async def test_a_store_whose_files_are_removed_is_still_locked(server: NatsServer) -> None:
    """Breaks: who tidies up lets a second server write into the first one's files."""
    for file in server.data.iterdir():
        if file.is_file():
            file.unlink()
    with pytest.raises(Unavailable) as error:
        await NatsServer(server.data).start()
    assert error.value.code == "nats.locked"


async def test_two_supervisors_of_one_process_do_not_share_a_store(server: NatsServer) -> None:
    """Breaks: a mistake in a program starts a second server on the same files."""
    with pytest.raises(Unavailable) as error:
        await NatsServer(server.data).start()
    assert error.value.code == "nats.locked"


async def test_it_listens_on_this_machine_only_and_wants_its_password(server: NatsServer) -> None:
    """Breaks: anyone in the network, or on the machine, can read recordings' metadata and write events."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.2", server.port))
    for name in ("server.conf", "server.json", "limits.json", "access.json"):
        assert stat.S_IMODE((server.data / name).stat().st_mode) == 0o600
    assert server.url.split(":")[2].split("@")[0] not in command_line(server.pid)


async def test_what_was_promised_to_the_streams_is_never_lowered(tmp_path: Path) -> None:
    """Breaks: on a fuller disk the streams want limits below what they hold, and are refused."""
    server = NatsServer(tmp_path, max_file=1 << 30)
    await server.start()
    await server.stop()
    await server.stop()
    for wanted, promised in ((None, 1 << 30), (1 << 20, 1 << 30), (2 << 30, 2 << 30), (None, 2 << 30)):
        server = NatsServer(tmp_path, max_file=wanted)
        await server.start()
        assert server.max_file == promised
        await server.stop()
    assert json.loads((tmp_path / "limits.json").read_bytes()) == {"max_file": 2 << 30}


async def test_a_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    """Breaks: `lucid up` ends with a timeout and no word about the cause."""
    (tmp_path / "store").write_bytes(b"not a folder")
    with pytest.raises(Unavailable) as error:
        await NatsServer(tmp_path, max_file=1 << 30).start()
    assert error.value.code == "nats.no_start"
    assert error.value.message.endswith("storage directory is not a directory")
    assert str(tmp_path) in error.value.hint


async def test_a_disk_that_was_full_brings_a_restart_when_room_is_back(
    server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks: after a full disk the streams stay wedged although there is room again."""
    free = [0]
    monkeypatch.setattr(nats_server, "free_bytes", lambda path: free[0])
    monkeypatch.setattr(nats_server, "WATCH_S", 0.05)
    await server.restart()
    first = server.pid
    await until(lambda: server._was_full)
    assert running(first)
    free[0] = 1 << 40
    await gone(first)
    await until(lambda: server.starts == 3)
    await server.ready()


async def test_what_is_acknowledged_is_on_the_disk_and_has_room_there(tmp_path: Path) -> None:
    """Breaks: a power failure takes what hosts were told is kept; or streams promise what no disk holds."""
    free = shutil.disk_usage(tmp_path).free
    server = NatsServer(tmp_path)
    await server.start()
    await server.stop()
    assert 0 < server.max_file <= free
    settings = [line.strip() for line in (tmp_path / "server.conf").read_text().splitlines()]
    assert "sync_interval: always" in settings
    assert f"max_file_store: {server.max_file}" in settings


async def test_a_full_disk_refuses_a_first_start_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks: a recording begins where not one fragment has room; or one that has begun cannot end."""
    free = [90_000]
    monkeypatch.setattr(nats_server, "free_bytes", lambda path: free[0])
    server = NatsServer(tmp_path)
    with pytest.raises(NoSpace) as error:
        await server.start()
    assert error.value.code == "nats.space"
    for free[0] in (1 << 40, 90_000):
        await server.start()
        await server.stop()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 32 MiB of its own."""
    where = tmp_path / "small"
    where.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", str(where)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        absent("the right to mount a tmpfs", MAY_MOUNT)
    yield where
    subprocess.run(["umount", str(where)], check=True)


async def test_a_full_disk_is_no_space_and_a_restart_heals_it(small_disk: Path) -> None:
    """Breaks: a full disk looks like a slow network, and hosts resend into it for ever."""
    server = NatsServer(small_disk / "nats", max_file=1 << 30)
    await server.start()
    jet = await connect(server.url, name="test")
    await jet.declare(StreamSpec("BIG", ("big",), 512 << 20))
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(8 << 20))
    acked = 0

    async def fill() -> None:
        nonlocal acked
        async with asyncio.timeout(PATIENCE_S):
            while True:
                with suppress(Unavailable):  # a slow answer
                    acked = (await jet.publish("big", bytes(900_000), timeout_s=1)).seq

    with pytest.raises(NoSpace) as error:
        await fill()
    assert error.value.code == "disk.full"
    assert acked > 10
    with pytest.raises(NoSpace):
        await jet.purge("BIG", "big")
    ballast.unlink()
    await server.restart()
    await jet.wait_up()
    found = [message.seq async for message in jet.read_all("BIG", "big")]
    assert found[:acked] == list(range(1, acked + 1))
    assert (await jet.publish("big", b"room again")).seq == len(found) + 1
    await jet.close()
    await server.stop()
