"""Reads the kernel's tables of Unix sockets: their paths, their states, their other ends.

1. A path is the text that a process chose. It proves nothing until the process itself is known.
2. All of it comes from sock_diag (man 7 sock_diag), in lengths and numbers. In the text of /proc/net/unix a
   name can look like another row. Others than root may ask, too.
"""

import os
import socket
import struct
from collections.abc import Iterator
from typing import NamedTuple

ESTABLISHED, LISTENING = 1, 10
NETLINK_SOCK_DIAG, SOCK_DIAG_BY_FAMILY = 4, 20
NLMSG_ERROR, NLMSG_DONE = 2, 3
NLM_F_REQUEST, NLM_F_DUMP = 0x1, 0x300
UDIAG_SHOW_NAME, UDIAG_SHOW_PEER = 0x1, 0x4
UNIX_DIAG_NAME, UNIX_DIAG_PEER = 0, 2
ANY_COOKIE = 0xFFFF_FFFF
HEADER = struct.Struct("=IHHII")
REQUEST = struct.Struct("=BBHIIIII")
ANSWER = struct.Struct("=BBBxIII")
ATTRIBUTE = struct.Struct("=HH")
ANSWER_BYTES = 1 << 16
ANSWER_S = 2.0
MAX_INODES = 4096
"""Open files of one process that are looked at."""


class UnixSocket(NamedTuple):
    """One socket with a path. An accepted connection has the path of its listener."""

    path: str
    """An abstract one begins with a zero byte."""
    inode: int
    listening: bool
    connected: bool


def unix_sockets() -> Iterator[UnixSocket]:
    """Yield the sockets that have a path, and listen or are connected. Raises OSError."""
    states = 1 << ESTABLISHED | 1 << LISTENING
    for state, inode, attributes in _asked(0, NLM_F_DUMP, states, UDIAG_SHOW_NAME):
        if name := attributes.get(UNIX_DIAG_NAME):
            path = os.fsdecode(name if name[:1] == b"\0" else name.split(b"\0", 1)[0])
            yield UnixSocket(path, inode, state == LISTENING, state == ESTABLISHED)


def peer_inode(inode: int) -> int:
    """Return the inode of a connected socket's other end; 0: it has none, or the kernel does not tell."""
    try:
        for _, _, attributes in _asked(inode, 0, 0xFFFF_FFFF, UDIAG_SHOW_PEER):
            return int.from_bytes(attributes.get(UNIX_DIAG_PEER, b""), "little")
    except OSError:
        pass
    return 0


def _asked(inode: int, flags: int, states: int, show: int) -> Iterator[tuple[int, int, dict[int, bytes]]]:
    """Yield state, inode and attributes of one socket, or of all. Raises OSError."""
    asked = REQUEST.pack(socket.AF_UNIX, 0, 0, states, inode, show, ANY_COOKIE, ANY_COOKIE)
    size = HEADER.size + len(asked)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_SOCK_DIAG) as link:
        link.settimeout(ANSWER_S)
        link.send(HEADER.pack(size, SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST | flags, 0, 0) + asked)
        while True:
            answer, at = link.recv(ANSWER_BYTES), 0
            while at + HEADER.size <= len(answer):
                length, kind, *_ = HEADER.unpack_from(answer, at)
                if kind == NLMSG_DONE:
                    return
                if kind == NLMSG_ERROR or length < HEADER.size + ANSWER.size:
                    raise OSError("the kernel does not tell of its sockets")
                yield _socket(answer[at + HEADER.size : at + length])
                at += length + -length % 4
            if not flags:
                return


def _socket(message: bytes) -> tuple[int, int, dict[int, bytes]]:
    _, _, state, inode, _, _ = ANSWER.unpack_from(message)
    attributes, at = {}, ANSWER.size
    while at + ATTRIBUTE.size <= len(message):
        taken, name = ATTRIBUTE.unpack_from(message, at)
        attributes[name] = message[at + ATTRIBUTE.size : at + taken]
        at += max(ATTRIBUTE.size, taken + -taken % 4)
    return state, inode, attributes


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
