"""Reads the kernel's tables of Unix sockets: their paths, their states, their other ends.

1. A path is the text that a process chose. It proves nothing until the process itself is known.
2. The other end comes from sock_diag (man 7 sock_diag). It needs no privilege.
"""

import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

TABLE = Path("/proc/net/unix")
LISTENING_FLAG = 0x10000
CONNECTED_STATE = 3
NETLINK_SOCK_DIAG, SOCK_DIAG_BY_FAMILY = 4, 20
NLMSG_ERROR, NLM_F_REQUEST = 2, 1
UDIAG_SHOW_PEER, UNIX_DIAG_PEER = 0x4, 2
ANY_COOKIE = 0xFFFF_FFFF
HEADER = struct.Struct("=IHHII")
REQUEST = struct.Struct("=BBHIIIII")
ANSWER = struct.Struct("=BBBxIII")
ATTRIBUTE = struct.Struct("=HH")
ANSWER_BYTES = 8192
ANSWER_S = 2.0
MAX_INODES = 4096
"""Open files of one process that are looked at."""


class UnixSocket(NamedTuple):
    """One socket with a path. An accepted connection has the path of its listener."""

    path: str
    inode: int
    listening: bool
    connected: bool


def unix_sockets(table: Path = TABLE) -> Iterator[UnixSocket]:
    """Yield the sockets that have a path."""
    for line in table.read_text(errors="replace").splitlines()[1:]:
        fields = line.split(None, 7)
        if len(fields) == 8:
            flags, state, inode = int(fields[3], 16), int(fields[5], 16), int(fields[6])
            yield UnixSocket(fields[7], inode, bool(flags & LISTENING_FLAG), state == CONNECTED_STATE)


def peer_inode(inode: int) -> int:
    """Return the inode of a connected socket's other end; 0: it has none, or the kernel does not tell."""
    asked = REQUEST.pack(socket.AF_UNIX, 0, 0, 0xFFFF_FFFF, inode, UDIAG_SHOW_PEER, ANY_COOKIE, ANY_COOKIE)
    size = HEADER.size + len(asked)
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_SOCK_DIAG) as link:
            link.settimeout(ANSWER_S)
            link.send(HEADER.pack(size, SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST, 0, 0) + asked)
            answer = link.recv(ANSWER_BYTES)
    except OSError:
        return 0
    length, kind, *_ = HEADER.unpack_from(answer)
    if kind == NLMSG_ERROR:
        return 0
    at, end = HEADER.size + ANSWER.size, min(length, len(answer))
    while at + ATTRIBUTE.size <= end:
        taken, name = ATTRIBUTE.unpack_from(answer, at)
        if name == UNIX_DIAG_PEER:
            return int.from_bytes(answer[at + ATTRIBUTE.size : at + taken], "little")
        at += max(ATTRIBUTE.size, taken + -taken % 4)
    return 0


def socket_inodes(pid: int) -> set[int]:
    """Return the inodes of a process's sockets. Raises OSError: it has ended, or is not ours to see."""
    found = set()
    for number in os.listdir(f"/proc/{pid}/fd")[:MAX_INODES]:
        try:
            target = os.readlink(f"/proc/{pid}/fd/{number}")
        except FileNotFoundError:
            continue
        if target.startswith("socket:["):
            found.add(int(target[8:-1]))
    return found


def owner_of(path: str) -> tuple[int, int]:
    """Return pid and uid of the process that listens on a path. Raises OSError: nobody does."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as link:
        link.settimeout(ANSWER_S)
        link.connect(path)
        told = link.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    pid, uid, _ = struct.unpack("3i", told)
    return pid, uid
