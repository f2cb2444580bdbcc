"""The host's own tables and the pipe of notices: real sockets, real pipes."""

import asyncio
import contextlib
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from infra.rdp_host import xrdp
from infra.rdp_host.notices import Notices
from infra.rdp_host.unix_sockets import peer_inode, socket_inodes, unix_sockets
from infra.rdp_host.xrdp import Xrdp
from schemas.errors import Unavailable
from tests.support.machine.absent import absent
from tests.support.machine.waiting import PATIENCE_S

HOOK = Path(__file__).parents[2] / "docs" / "examples" / "xrdp" / "lucid-notice"


def test_a_connection_and_its_other_end_are_in_the_tables(tmp_path: Path) -> None:
    """Breaks: the agent takes a session without a client for one with a client, or for that of another."""
    path = str(tmp_path / "made_up_7")
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as client:
        listener.bind(path)
        listener.listen()
        client.connect(path)
        server, _ = listener.accept()
        with server:
            found = {one.inode: one for one in unix_sockets() if one.path == path}
            accepted = os.fstat(server.fileno()).st_ino
            assert found[os.fstat(listener.fileno()).st_ino].listening
            assert found[accepted].connected
            assert peer_inode(accepted) == os.fstat(client.fileno()).st_ino
            assert {accepted, os.fstat(client.fileno()).st_ino} <= socket_inodes(os.getpid())
        assert peer_inode(accepted) == 0


def test_a_name_that_looks_like_rows_is_one_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks: one socket of anybody ends all recordings of the host, or pretends a connected client."""
    monkeypatch.chdir(tmp_path)
    folder = Path("a\nx: 2 0 10000 1 3 4242 ")
    (folder / "y").mkdir(parents=True)
    names = ["a\nb c d zz e f g h", f"{folder}/y/made_up_10", "\0/tmp/made_up_10 \n"]
    with contextlib.ExitStack() as stack:
        for name in names:
            one = stack.enter_context(socket.socket(socket.AF_UNIX))
            one.bind(name)
            one.listen()
        found = list(unix_sockets())
    assert {one.path for one in found} >= set(names)
    assert 4242 not in {one.inode for one in found}


MANAGER, X_SERVER = "made-up-manager", "made-up-server"
LISTENER = """
import os, socket, sys, time
open_ones = []
for name in sys.argv[1:]:
    one = socket.socket(socket.AF_UNIX)
    one.bind(name)
    one.listen()
    open_ones.append(one)
sys.stdin.read()
"""


class Manager:
    """A program that is taken for the session manager of xrdp, and starts programs that listen."""

    def __init__(self, folder: Path) -> None:
        if os.geteuid() != 0:
            absent("a session manager of root", "run as root")
        self._folder = folder
        self.children: list[subprocess.Popen[bytes]] = []
        (folder / "listen.py").write_text(LISTENER)
        library = Path(sys.base_prefix) / "lib"
        self._environment = {"PYTHONHOME": sys.base_prefix, "LD_LIBRARY_PATH": str(library)}

    def start(self, manager: str, program: str, *paths: str) -> "subprocess.Popen[bytes]":
        """A program under a manager. It has a socket at each path on return, and ends with its stdin."""
        for name, original in ((manager, shutil.which("dash") or "/bin/sh"), (program, sys.executable)):
            if not (self._folder / name).exists():
                shutil.copy(Path(original).resolve(), self._folder / name)
        command = [str(self._folder / program), str(self._folder / "listen.py"), *paths]
        child = subprocess.Popen(
            [self._folder / manager, "-c", '"$@"; exit 0', "sh", *command],
            stdin=subprocess.PIPE,
            env=self._environment,
        )
        self.children.append(child)
        end_s = time.monotonic() + PATIENCE_S
        while not {one.path for one in unix_sockets()} >= set(paths):
            assert time.monotonic() < end_s
            assert child.poll() is None
            time.sleep(0.05)
        return child

    def end(self) -> None:
        for child in self.children:
            child.communicate()


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    found = Manager(tmp_path)
    try:
        yield found
    finally:
        found.end()


@pytest.fixture(autouse=True)
def _apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """No agent of another test takes these programs and sockets for its own, and the reverse."""
    monkeypatch.setattr(xrdp, "BEGINS_S", 0.0)
    monkeypatch.setattr(xrdp, "MANAGERS", (MANAGER,))
    monkeypatch.setattr(xrdp, "X_SERVER", X_SERVER)
    monkeypatch.setattr(xrdp, "XRDP_SOCKET", re.compile(r"^/.*/made_up_(\d+)$"))


def test_only_an_x_server_of_the_manager_is_a_session(tmp_path: Path, manager: Manager) -> None:
    """Breaks: somebody has displays recorded that are no RDP sessions, until the disk is full."""
    host = Xrdp()
    with socket.socket(socket.AF_UNIX) as own:
        own.bind(str(tmp_path / "made_up_76"))
        own.listen()
        manager.start(MANAGER, "startwm", str(tmp_path / "made_up_77"))
        manager.start("someone", X_SERVER, str(tmp_path / "made_up_78"))
        assert host.sessions() == []
        manager.start(MANAGER, X_SERVER, *(str(tmp_path / f"made_up_{n}") for n in (80, 79, 81)))
        (one,) = host.sessions()
        assert (one.display, one.uid, one.connected) == (79, 0, False)


def test_a_session_ends_with_its_process_alone(tmp_path: Path, manager: Manager) -> None:
    """Breaks: a person removes a socket, and is not recorded any more."""
    host, path = Xrdp(), tmp_path / "made_up_79"
    child = manager.start(MANAGER, X_SERVER, str(path))
    (before,) = host.sessions()
    path.unlink()
    with socket.socket(socket.AF_UNIX) as other, socket.socket(socket.AF_UNIX) as client:
        other.bind(str(path))
        other.listen()
        client.connect(str(path))
        assert host.sessions() == [before], "not connected: the connection is that of another process"
    child.communicate()
    assert host.sessions() == []


def test_a_gateway_of_a_person_names_no_client() -> None:
    """Breaks: a person chooses the address that the evidence gives for their client."""
    own = psutil.Process()
    assert not xrdp._is_gateway(own, os.getuid()) or os.getuid() == 0
    assert xrdp._is_gateway(own, 4_000_000) == (os.getuid() == 0)


async def test_the_hook_is_heard(tmp_path: Path) -> None:
    """Breaks: a login is noticed a second late."""
    pipe = tmp_path / "run" / "notices"
    notices = Notices(pipe)
    try:
        for _ in range(2):
            done = await asyncio.to_thread(subprocess.run, [HOOK, pipe], env={"PAM_TYPE": "open_session"})
            assert done.returncode == 0
            async with asyncio.timeout(PATIENCE_S):
                await notices.heard()
    finally:
        notices.close()


@pytest.mark.parametrize("kind", ["absent", "file", "full"])
def test_a_login_never_fails_or_waits_for_the_agent(tmp_path: Path, kind: str) -> None:
    """Breaks: nobody can log in while the agent is away."""
    pipe = tmp_path / "notices"
    held = None
    if kind == "file":
        pipe.write_bytes(b"")
    if kind == "full":
        os.mkfifo(pipe)
        held = os.open(pipe, os.O_RDWR | os.O_NONBLOCK)
        with contextlib.suppress(BlockingIOError):
            while os.write(held, bytes(4096)):
                pass
    done = subprocess.run([HOOK, pipe], check=False, timeout=PATIENCE_S, capture_output=True)
    if held is not None:
        os.close(held)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    if kind == "file":
        assert pipe.read_bytes() == b""


@pytest.mark.parametrize("kind", ["file", "link", "writable by all", "no folder"])
async def test_only_a_pipe_of_the_agent_alone_is_read(tmp_path: Path, kind: str) -> None:
    """Breaks: anybody makes the agent look all the time, or read a file for ever."""
    pipe = tmp_path / "notices"
    if kind == "file":
        pipe.write_bytes(b"")
    elif kind == "link":
        os.mkfifo(tmp_path / "other", 0o600)
        pipe.symlink_to(tmp_path / "other")
    elif kind == "writable by all":
        os.mkfifo(pipe)
        pipe.chmod(0o622)
    else:
        (tmp_path / "taken").write_bytes(b"")
        pipe = tmp_path / "taken" / "notices"
    with pytest.raises(Unavailable) as refused:
        Notices(pipe)
    assert refused.value.code == "agent.notices"
