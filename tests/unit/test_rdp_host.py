"""The host's own tables and the pipe of notices: real sockets, real pipes."""

import asyncio
import contextlib
import os
import socket
import subprocess
from pathlib import Path

import pytest

from infra.rdp_host import xrdp
from infra.rdp_host.notices import Notices
from infra.rdp_host.unix_sockets import owner_of, peer_inode, socket_inodes, unix_sockets
from infra.rdp_host.xrdp import Xrdp
from schemas.errors import Unavailable
from tests.support.machine.waiting import PATIENCE_S

HOOK = Path(__file__).parents[2] / "docs" / "examples" / "xrdp" / "lucid-notice"


def test_a_connection_and_its_other_end_are_in_the_tables(tmp_path: Path) -> None:
    """Breaks: the agent takes a session without a client for one with a client, or for that of another."""
    path = str(tmp_path / "xrdp_display_7")
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
            assert owner_of(path) == (os.getpid(), os.getuid())
        assert peer_inode(accepted) == 0


def test_a_table_with_odd_lines_is_read(tmp_path: Path) -> None:
    """Breaks: a path with spaces, which anybody can make, hides every session of the host."""
    table = tmp_path / "unix"
    line = "0000000000000000: 00000002 00000000 00010000 0001 01 77 "
    table.write_text(f"Num RefCount\n{line}/a b\n{line.rstrip()}\n{line}@/tmp/.X11-unix/X1\n")
    assert [one.path for one in unix_sockets(table)] == ["/a b", "@/tmp/.X11-unix/X1"]


def test_a_person_cannot_make_a_session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks: somebody has displays recorded that are no RDP sessions, until the disk is full."""
    monkeypatch.setattr(xrdp, "SOCKETS", tmp_path)
    with socket.socket(socket.AF_UNIX) as session, socket.socket(socket.AF_UNIX) as display:
        session.bind(str(tmp_path / "xrdp_display_77"))
        session.listen()
        display.bind(str(tmp_path / "X77"))
        display.listen()
        host = Xrdp()
        assert [host.sessions(), host.sessions()] == [[], []]


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
