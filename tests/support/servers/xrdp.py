"""A real RDP server with a person of its own, and a real RDP client: xrdp, xorgxrdp, xfreerdp.

1. The server's files are bound over those in /etc for its own processes only. The machine keeps its own.
2. A person is a local user, who is removed at the end, with all processes.
3. Every wait is for something that can be seen. A client that does not get in tries again: xrdp loses a
   connection now and then while its X server starts.
"""

import contextlib
import os
import re
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from tests.support.machine.absent import absent
from tests.support.machine.ports import free_port
from tests.support.machine.waiting import PATIENCE_S
from tests.support.machine.x_display import Person, program

XRDP_INI, SESMAN_INI, PAM = (
    Path("/etc/xrdp/xrdp.ini"),
    Path("/etc/xrdp/sesman.ini"),
    Path("/etc/pam.d/xrdp-sesman"),
)
FIRST_DISPLAY = 60
TRIES = 5
HOOK = Path(__file__).parents[3] / "docs" / "examples" / "xrdp" / "lucid-notice"
DESKTOP = """#!/bin/sh
openbox &
exec xterm -geometry 80x20+0+0 -fa 'DejaVu Sans Mono' -fs 20
"""
SESMAN = """[Globals]
ListenAddress=127.0.0.1
ListenPort={port}
EnableUserWindowManager=false
UserWindowManager=startwm.sh
DefaultWindowManager={folder}/desktop
ReconnectScript=/bin/true
[Security]
AllowRootLogin=false
MaxLoginRetry=4
AlwaysGroupCheck=false
[Sessions]
X11DisplayOffset={display}
MaxSessions=10
KillDisconnected=false
DisconnectedTimeLimit=0
IdleTimeLimit=0
Policy=Default
[Logging]
LogFile={folder}/sesman.log
LogLevel=INFO
EnableSyslog=false
[Xorg]
param=/usr/lib/xorg/Xorg
param=-config
param=xrdp/xorg.conf
param=-noreset
param=-nolisten
param=tcp
param=-logfile
param=/dev/null
[Chansrv]
[SessionVariables]
"""


def wait_for(done: Callable[[], object], seconds: float = PATIENCE_S) -> None:
    end_s = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end_s, "it has not come"
        time.sleep(0.1)


@dataclass
class RdpServer:
    """A server that runs, its port, and the person who may log in."""

    folder: Path
    port: int
    user: str
    password: str
    processes: list["subprocess.Popen[bytes]"] = field(default_factory=list)

    def wait_for_desktop(self) -> None:
        """Return when the person's terminal runs."""
        wait_for(lambda: "xterm" in self._programs())

    @property
    def home(self) -> Path:
        return Path(f"~{self.user}").expanduser()

    def has_ended(self) -> bool:
        """The person's session is over."""
        return "Xorg" not in self._programs()

    def _programs(self) -> set[str]:
        """Names of the person's processes."""
        found = set()
        for one in self._own():
            with contextlib.suppress(psutil.Error):
                found.add(one.name())
        return found

    def _own(self) -> list[psutil.Process]:
        found = []
        for one in psutil.process_iter(["username"]):
            with contextlib.suppress(psutil.Error):
                if one.info["username"] == self.user:
                    found.append(one)
        return found

    def end(self) -> None:
        """End the server and every process of the person."""
        for process in self.processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
        for one in self._own():
            with contextlib.suppress(psutil.Error):
                one.kill()
        for process in self.processes:
            process.wait()
        wait_for(lambda: not self._own())


@contextlib.contextmanager
def rdp_server(notices: Path) -> Iterator[RdpServer]:
    """A server whose PAM hook writes to `notices`. Without root the test is skipped; in CI it fails."""
    if os.getuid() != 0:
        absent("an RDP server", "run as root")
    for name in ("xrdp", "xrdp-sesman", "Xorg", "openbox", "xterm", "unshare", "useradd"):
        program(name)
    if subprocess.run(["unshare", "-m", "true"], check=False).returncode:
        absent("a private view of /etc", "run where root may mount")
    with (
        tempfile.TemporaryDirectory(prefix="lucid-rdp-") as folder,
        _person() as (user, password),
    ):
        port, sesman_port = free_port(), free_port()  # xrdp binds no port that somebody holds
        Path(folder).chmod(0o755)  # the person reads it, too
        server = RdpServer(Path(folder), port, user, password)
        _write_files(server, sesman_port, notices)
        shutil.rmtree("/run/xrdp/sockdir", ignore_errors=True)  # the manager makes it, for all users
        try:
            _start(server, "xrdp-sesman", "-c", str(SESMAN_INI))
            wait_for(lambda: _listens(sesman_port))
            _start(server, "xrdp", "-c", str(XRDP_INI))
            wait_for(lambda: _listens(port))
            yield server
        finally:
            server.end()


def _listens(port: int) -> bool:
    return any(
        link.status == psutil.CONN_LISTEN and link.laddr.port == port
        for link in psutil.net_connections("tcp")
    )


def _write_files(server: RdpServer, sesman_port: int, notices: Path) -> None:
    folder = server.folder
    ini = XRDP_INI.read_text()
    for name, value in (
        *(("port", f"tcp://127.0.0.1:{server.port}"), ("autorun", "Xorg")),
        *(("LogFile", f"{folder}/xrdp.log"), ("EnableSyslog", "false")),
    ):
        ini = re.sub(rf"^{name}=.*$", f"{name}={value}", ini, count=1, flags=re.MULTILINE)
    (folder / "xrdp.ini").write_text(ini)
    told = SESMAN.format(port=sesman_port, folder=folder, display=FIRST_DISPLAY)
    (folder / "sesman.ini").write_text(told)
    (folder / "desktop").write_text(DESKTOP)
    (folder / "desktop").chmod(0o755)
    hook = f"session optional pam_exec.so quiet {HOOK} {notices}\n"
    (folder / "pam").write_text(PAM.read_text() + hook)


def _start(server: RdpServer, name: str, *arguments: str) -> None:
    bound = {"xrdp.ini": XRDP_INI, "sesman.ini": SESMAN_INI, "pam": PAM}
    mounts = [f"mount --bind {server.folder / ours} {theirs}" for ours, theirs in bound.items()]
    script = " && ".join([*mounts, 'exec "$@"'])
    command = ["unshare", "-m", "sh", "-c", script, "sh", program(name), "--nodaemon", *arguments]
    with open(server.folder / f"{name}.out", "wb") as log:
        server.processes.append(
            subprocess.Popen(
                command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True
            )
        )


@contextlib.contextmanager
def _person() -> Iterator[tuple[str, str]]:
    user, password = f"lucid-{secrets.token_hex(4)}", secrets.token_urlsafe(12)
    subprocess.run(["useradd", "-m", "-s", "/bin/sh", user], check=True)
    try:
        subprocess.run(["chpasswd"], input=f"{user}:{password}".encode(), check=True)
        yield user, password
    finally:
        subprocess.run(["userdel", "-r", user], check=False, capture_output=True)


class RdpClient:
    """A person in front of a screen of their own, with an RDP client on it."""

    def __init__(self, server: RdpServer, screen: Person) -> None:
        self._server, self._screen = server, screen
        self._process: subprocess.Popen[bytes] | None = None

    def connect(self, size: str) -> None:
        """Log in, or come back. The window of the client is there on return."""
        server = self._server
        command = [program("xfreerdp"), f"/v:127.0.0.1:{server.port}", f"/u:{server.user}"]
        options = [f"/p:{server.password}", "/cert:ignore", f"/size:{size}", "/dynamic-resolution"]
        for _ in range(TRIES):
            with open(server.folder / "xfreerdp.out", "ab") as log:
                self._process = subprocess.Popen(
                    [*command, *options], env=self._screen.environment, stdout=log, stderr=log
                )
            wait_for(lambda: self._ended() or (self._window() and self._is_in()))
            if not self._ended():
                return
        raise AssertionError((server.folder / "xfreerdp.out").read_text())

    def disconnect(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait()

    def resize(self, width: int, height: int) -> None:
        self._screen.run("xdotool", "windowsize", self._window(), str(width), str(height))

    def type_until(self, text: str, done: Callable[[], object]) -> None:
        """Type one line into the terminal on the desktop, again until it has its effect.

        The first one may come before the window manager at the other end has focused the terminal. A click
        on the notice closes it.
        """
        screen, end_s = self._screen, time.monotonic() + PATIENCE_S
        while not done():
            assert time.monotonic() < end_s, f"nobody takes what is typed: {text}"
            window = self._window()
            screen.run("xdotool", "windowfocus", window)
            screen.run("xdotool", "mousemove", "--window", window, "200", "60", "click", "1")
            time.sleep(0.5)
            screen.run("xdotool", "type", "--delay", "30", text)
            screen.run("xdotool", "key", "Return")
            with contextlib.suppress(AssertionError):
                wait_for(done, 3.0)

    def _is_in(self) -> bool:
        """The X server of the session has a connection of this client's xrdp process."""
        return any(
            link.status == psutil.CONN_ESTABLISHED and link.raddr and link.raddr.port == self._server.port
            for link in psutil.net_connections("tcp")
        )

    def _ended(self) -> bool:
        return self._process is None or self._process.poll() is not None

    def _window(self) -> str:
        found = self._screen.run("xdotool", "search", "--name", "FreeRDP", check=False).splitlines()
        return found[-1] if found else ""
