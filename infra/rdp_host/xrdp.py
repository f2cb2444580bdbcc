"""Finds the RDP sessions of xrdp on this host, in the tables of the kernel (docs/decisions/42).

1. A session is a process: an Xorg under a session manager of root. It holds a listening xrdp socket.
   A person may start one more Xorg there. It is recorded under that person's name, too.
2. A session that was found ends with its process, and with nothing else.
3. A client is connected while the X server itself holds a connection on its xrdp socket. The process at the
   other end is an xrdp process of root or of xrdp's own user: nobody else can name an address.
4. A session that begins is shown when its first client is connected, or after BEGINS_S without one.
5. Processes are looked at when the sockets have changed, and every AGAIN_S. It needs root: others see no
   foreign sockets.
"""

import asyncio
import os
import pwd
import re
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import psutil

from infra.capture.x11_cookie import read_cookie
from infra.capture.x11_display import Display, check_size, watched_display
from infra.capture.x11_notice import show_notice
from infra.capture.x11_source import X11Source
from infra.rdp_host.notices import Notices
from infra.rdp_host.process_table import Row, process_rows, row_of
from infra.rdp_host.unix_sockets import UnixSocket, peer_inode, socket_inodes, unix_sockets
from schemas.config.logs import logger
from schemas.errors import Denied, Unavailable
from schemas.ports.processes import Picture
from schemas.ports.rdp import DisplaySource, RdpHost, RdpSession

XRDP_SOCKET = re.compile(r"^/.*/xrdp_display_(\d{1,5})$", re.DOTALL)
MANAGERS, GATEWAY, X_SERVER = ("xrdp-sesman", "xrdp-sesexec"), "xrdp", "Xorg"
"""Programs. The second manager is that of xrdp 0.10 and later."""
SERVICE_USER = "xrdp"
"""Of the gateway, where it is not root."""
AUTH_OPTION = "-auth"
ROOT = 0
BEGINS_S = 10.0
"""The X server runs a moment before the client is connected."""
AGAIN_S = 10.0
TELL_S = 60.0
"""Displays that are no session are told in the log at most so often."""

log = logger("lucid.rdp_host")

Displays = dict[int, list[UnixSocket]]


@dataclass(slots=True)
class _Known:
    """A session that was found, and the sockets of its last look."""

    session: RdpSession
    row: Row
    sockets: frozenset[int] = frozenset()
    seen: bool = False
    """It is shown: a client was connected, or none came within BEGINS_S."""


class Xrdp:
    """The sessions of xrdp. The port RdpHost."""

    def __init__(self, notices: Notices | None = None) -> None:
        self._notices = notices
        self._known: dict[int, _Known] = {}
        """By process id of the X server."""
        self._table: frozenset[int] = frozenset()
        """The sockets of the last look at processes."""
        self._looked_s = self._told_s = -max(AGAIN_S, TELL_S)

    def sessions(self) -> list[RdpSession]:
        displays: Displays = defaultdict(list)
        for one in unix_sockets():
            if match := XRDP_SOCKET.match(one.path):
                displays[int(match[1])].append(one)
        table = frozenset(one.inode for sockets in displays.values() for one in sockets)
        self._known = {pid: one for pid, one in self._known.items() if _runs(one.row)}
        now_s, rests = time.monotonic(), table == self._table
        if not rests or now_s - self._looked_s >= AGAIN_S:
            self._find(displays)
            self._table, self._looked_s = table, now_s
            if rests:
                self._tell_refused(displays, now_s)
        for known in self._known.values():
            with suppress(OSError, psutil.Error):  # it ends just now: the next look tells
                _look(known, displays.get(known.session.display, []))
        return [one.session for one in self._known.values() if one.seen]

    async def size(self, session: RdpSession) -> tuple[int, int]:
        known = await asyncio.to_thread(self._display, session)  # the person's home may be far away
        async with watched_display(known, asyncio.Event()) as display:
            check_size(display.size)
            return display.size

    @asynccontextmanager
    async def source(self, session: RdpSession, picture: Picture) -> AsyncIterator[DisplaySource]:
        yield X11Source(await asyncio.to_thread(self._display, session), picture)

    async def tell(self, session: RdpSession, text: str, seconds: float, shown: Callable[[], None]) -> None:
        await show_notice(await asyncio.to_thread(self._display, session), text, seconds, shown)

    async def noticed(self) -> None:
        await (self._notices.heard() if self._notices else asyncio.Event().wait())

    def _find(self, displays: Displays) -> None:
        """Find the X servers that session managers have started."""
        rows = process_rows()
        managers: dict[int, bool] = {}
        for pid, row in rows.items():
            if pid in self._known or row.parent not in rows:
                continue
            with suppress(OSError, psutil.Error):  # it ends just now
                if row.parent not in managers:
                    managers[row.parent] = _is_manager(rows[row.parent])
                if managers[row.parent] and (session := _session(row, displays)):
                    self._known[pid] = _Known(session, row)

    def _tell_refused(self, displays: Displays, now_s: float) -> None:
        """Tell of xrdp sockets without a session: somebody pretends, or the agent does not see them."""
        known = {one.session.display for one in self._known.values()}
        refused = [number for number in sorted(displays) if number not in known]
        if refused and now_s - self._told_s >= TELL_S:
            self._told_s = now_s
            log.warning("displays_refused", count=len(refused), first=refused[0])

    def _display(self, session: RdpSession) -> Display:
        """The display with its cookie. Raises Unavailable (display.cookie, display.gone)."""
        pid, began = map(int, session.key.split("."))
        try:
            server = psutil.Process(pid)
            options, home, gid = server.cmdline(), server.cwd(), server.gids().real
            if row_of(pid).began != began:
                raise psutil.NoSuchProcess(pid)
        except (OSError, psutil.Error):
            raise Unavailable("there is no display to record: it has ended", code="display.gone") from None
        named = options[options.index(AUTH_OPTION) + 1] if AUTH_OPTION in options[:-1] else ".Xauthority"
        cookie = read_cookie(Path(home) / named, session.display, session.uid, gid)
        return Display(session.display, cookie, session.uid)


@asynccontextmanager
async def rdp_host(notices: Path) -> AsyncIterator[RdpHost]:
    """The sessions of this host. notices: a named pipe, made if it is absent.

    Raises Denied (agent.not_root), Unavailable (agent.notices).
    """
    if os.geteuid() != ROOT:
        raise Denied(
            "the agent sees no RDP session of other users: it does not run as root",
            code="agent.not_root",
            hint="run it as root: sudo lucid agent run",
        )
    heard = Notices(notices)
    try:
        yield Xrdp(heard)
    finally:
        heard.close()


def _runs(row: Row) -> bool:
    try:
        now = row_of(row.pid)
    except FileNotFoundError:
        return False
    except OSError:  # it cannot be seen now: a session ends only when that is known
        return True
    return now.began == row.began and not now.has_ended


def _is_manager(row: Row) -> bool:
    if row.name not in MANAGERS:
        return False
    process = psutil.Process(row.pid)
    return Path(process.exe()).name in MANAGERS and set(process.uids()) == {ROOT}


def _session(row: Row, displays: Displays) -> RdpSession | None:
    """Return the session of a child of a manager; None: it is none. Raises OSError, psutil.Error."""
    server = psutil.Process(row.pid)
    if Path(server.exe()).name != X_SERVER or os.stat(f"/proc/{row.pid}/exe").st_uid != ROOT:
        return None
    held, uid = socket_inodes(row.pid), server.uids().real
    own = (
        number
        for number, some in displays.items()
        if any(one.listening and one.inode in held for one in some)
    )
    display = min(own, default=None)
    if display is None or row_of(row.pid).began != row.began:
        return None
    name, domain = _person(uid)
    return RdpSession(f"{row.pid}.{row.began}", display, name, uid, domain, connected=False)


def _look(known: _Known, sockets: list[UnixSocket]) -> None:
    """See whether a client is connected. Raises OSError, psutil.Error."""
    inodes = frozenset(one.inode for one in sockets)
    if inodes != known.sockets:
        held = socket_inodes(known.row.pid)
        connections = [one.inode for one in sockets if one.connected and one.inode in held]
        client = _client(connections[-1], known.session.uid) if connections else ""
        known.session = replace(known.session, connected=bool(connections), client=client)
        known.sockets = inodes
    known.seen = known.seen or known.session.connected or known.row.age_s > BEGINS_S


def _person(uid: int) -> tuple[str, str]:
    """Name and domain of a user; a user of a directory is DOMAIN\\name or name@domain."""
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid-{uid}", ""
    if "\\" in name:
        domain, _, name = name.partition("\\")
        return name, domain
    name, _, domain = name.partition("@")
    return name, domain


def _client(inode: int, uid: int) -> str:
    """The address of the client behind a connection of an X server; empty: not known. uid: of the person."""
    peer = peer_inode(inode)
    if not peer:
        return ""
    ports: set[int] = set()
    holder = None
    for one in psutil.process_iter(["name"]):
        with suppress(OSError, psutil.Error):
            if one.info["name"] != GATEWAY or not _is_gateway(one, uid):
                continue
            links = one.net_connections("tcp")
            ports |= {link.laddr.port for link in links if link.status == psutil.CONN_LISTEN}
            if peer in socket_inodes(one.pid):
                holder = links
    for link in holder or ():
        if link.raddr and link.laddr.port in ports:
            return str(link.raddr.ip).removeprefix("::ffff:")
    return ""


def _is_gateway(process: psutil.Process, person: int) -> bool:
    """Whether it runs as root or as xrdp's own user. Raises psutil.Error."""
    allowed = {ROOT}
    with suppress(KeyError):
        allowed.add(pwd.getpwnam(SERVICE_USER).pw_uid)
    return set(process.uids()) <= allowed and (person == ROOT or person not in process.uids())
