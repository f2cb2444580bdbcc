"""Finds the RDP sessions of xrdp on this host, in the tables of the kernel (docs/decisions/42).

1. A session is an X server that listens on an xrdp socket. Its parent is a session manager of root. A person
   can make sockets and processes, but no child of that process.
2. The X server is the process that the kernel names as the owner of the display's socket.
3. A client is connected while the X server itself holds a connection on its xrdp socket. The process at the
   other end is an xrdp process; its TCP connection on a port of xrdp has the address of the client.
4. A session that begins is shown when its first client is connected, or after BEGINS_S without one.
5. A look takes one file of the kernel if nothing has changed. It needs root: others see no foreign sockets.
"""

import asyncio
import os
import pwd
import re
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import psutil

from infra.capture.x11_display import SOCKETS, Display, read_cookie, watched_display
from infra.capture.x11_notice import show_notice
from infra.capture.x11_source import X11Source
from infra.rdp_host.notices import Notices
from infra.rdp_host.unix_sockets import UnixSocket, owner_of, peer_inode, socket_inodes, unix_sockets
from schemas.config.logs import logger
from schemas.errors import Denied
from schemas.ports.processes import Picture
from schemas.ports.rdp import DisplaySource, RdpHost, RdpSession

XRDP_SOCKET = re.compile(r"^/.*/xrdp_display_(\d{1,5})$")
MANAGERS, GATEWAY = ("xrdp-sesman", "xrdp-sesexec"), "xrdp"
"""Programs. The second manager is that of xrdp 0.10 and later."""
MOST_SESSIONS = 1000
AUTH_OPTION = "-auth"
ROOT = 0
BEGINS_S = 10.0
"""The X server runs a moment before the client is connected."""

log = logger("lucid.rdp_host")


@dataclass(slots=True)
class _Known:
    """A session that was found, and the socket table of its last look."""

    session: RdpSession
    pid: int
    began_s: float
    sockets: frozenset[int]
    seen: bool = False
    """It is shown: a client was connected, or none came within BEGINS_S."""


class Xrdp:
    """The sessions of xrdp. The port RdpHost."""

    def __init__(self, notices: Notices | None = None) -> None:
        self._notices = notices
        self._known: dict[int, _Known] = {}
        """By display."""
        self._refused: dict[int, frozenset[int]] = {}
        """Displays that are no session, with the sockets for which that was found."""

    def sessions(self) -> list[RdpSession]:
        by_display: dict[int, list[UnixSocket]] = {}
        for one in unix_sockets():
            if match := XRDP_SOCKET.match(one.path):
                by_display.setdefault(int(match[1]), []).append(one)
        known: dict[int, _Known] = {}
        refused: dict[int, frozenset[int]] = {}
        for display in sorted(by_display)[:MOST_SESSIONS]:
            sockets = by_display[display]
            inodes = frozenset(one.inode for one in sockets)
            if self._refused.get(display) == inodes:
                refused[display] = inodes
                continue
            try:
                found = self._look(display, sockets, inodes)
            except (OSError, psutil.Error):  # it ends just now, or begins
                continue
            if found is None:
                refused[display] = inodes
            else:
                known[display] = found
        self._known, self._refused = known, refused
        return [one.session for one in known.values() if one.seen]

    async def size(self, session: RdpSession) -> tuple[int, int]:
        known = await asyncio.to_thread(self._display, session)  # the person's home may be far away
        async with watched_display(known, asyncio.Event()) as display:
            return display.size

    @asynccontextmanager
    async def source(self, session: RdpSession, picture: Picture) -> AsyncIterator[DisplaySource]:
        yield X11Source(await asyncio.to_thread(self._display, session), picture)

    async def tell(self, session: RdpSession, text: str, seconds: float, shown: Callable[[], None]) -> None:
        await show_notice(await asyncio.to_thread(self._display, session), text, seconds, shown)

    async def noticed(self) -> None:
        await (self._notices.heard() if self._notices else asyncio.Event().wait())

    def _look(self, display: int, sockets: list[UnixSocket], inodes: frozenset[int]) -> _Known | None:
        """Return the session of the display; None: it is none. Raises OSError, psutil.Error."""
        known = self._known.get(display)
        if known is not None and known.seen and known.sockets == inodes and _runs(known):
            return known
        pid, uid = owner_of(str(SOCKETS / f"X{display}"))
        server = psutil.Process(pid)
        if known is None or (known.pid, known.began_s) != (pid, server.create_time()):
            parent = server.parent()
            if parent is None or Path(parent.exe()).name not in MANAGERS or parent.uids().real != ROOT:
                return None
            name, domain = _person(uid)
            began_s = server.create_time()
            session = RdpSession(f"{pid}.{round(began_s * 1000)}", display, name, uid, domain)
            known = _Known(session, pid, began_s, inodes)
        held = socket_inodes(pid)
        connections = [one.inode for one in sockets if one.connected and one.inode in held]
        client = _client(connections[-1]) if connections else ""
        session = replace(known.session, connected=bool(connections), client=client)
        seen = known.seen or session.connected or time.time() - known.began_s > BEGINS_S
        return replace(known, session=session, sockets=inodes, seen=seen)

    def _display(self, session: RdpSession) -> Display:
        """The display with its cookie. Raises Unavailable (display.cookie, display.gone)."""
        return Display(session.display, self._cookie(session), session.uid)

    def _cookie(self, session: RdpSession) -> bytes:
        pid = int(session.key.split(".")[0])
        try:
            server = psutil.Process(pid)
            options, home = server.cmdline(), server.cwd()
        except psutil.Error:
            options, home = [], pwd.getpwuid(session.uid).pw_dir
        named = options[options.index(AUTH_OPTION) + 1] if AUTH_OPTION in options[:-1] else ".Xauthority"
        return read_cookie(Path(home) / named, session.display, session.uid)


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


def _runs(known: _Known) -> bool:
    try:
        return bool(psutil.Process(known.pid).create_time() == known.began_s)
    except psutil.Error:
        return False


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


def _client(inode: int) -> str:
    """The address of the client behind a connection of an X server; empty: it is not known."""
    peer = peer_inode(inode)
    if not peer:
        return ""
    gateways = [one for one in psutil.process_iter(["name"]) if one.info["name"] == GATEWAY]
    ports: set[int] = set()
    holder = None
    for one in gateways:
        try:
            links = one.net_connections("tcp")
            ports |= {link.laddr.port for link in links if link.status == psutil.CONN_LISTEN}
            if peer in socket_inodes(one.pid):
                holder = links
        except (OSError, psutil.Error):
            continue
    for link in holder or ():
        if link.raddr and link.laddr.port in ports:
            return str(link.raddr.ip).removeprefix("::ffff:")
    return ""
