"""Reads and writes the cookies of X11 displays: files in the format of Xauthority.

1. The recorded person chooses the file. A child process reads it with that person's rights, so it can hold
   nothing that the person may not read. It is given READ_S and READ_MOST.
"""

import os
import subprocess
from pathlib import Path

from schemas.errors import Unavailable

COOKIE_NAME = b"MIT-MAGIC-COOKIE-1"
READ_MOST, READ_S = 1 << 20, 5.0


def read_cookie(path: Path, number: int, uid: int, gid: int) -> bytes:
    """Return the cookie for the display :number out of an Xauthority file; empty: it has none.

    Raises Unavailable (display.cookie): this user cannot read it.
    """
    command = ["head", "-c", str(READ_MOST), "--", str(path)]
    try:
        if (uid, gid) == (os.geteuid(), os.getegid()):
            done = subprocess.run(command, capture_output=True, timeout=READ_S, check=False)
        else:
            done = subprocess.run(
                command,
                capture_output=True,
                timeout=READ_S,
                check=False,
                user=uid,
                group=gid,
                extra_groups=[],
                cwd="/",
            )
    except (OSError, ValueError, subprocess.TimeoutExpired):
        raise _unread(path, uid) from None
    if done.returncode:
        raise _unread(path, uid)
    return _cookie(done.stdout, str(number).encode())


def _unread(path: Path, uid: int) -> Unavailable:
    return Unavailable(f"user {uid} cannot read {path}", code="display.cookie")


def _cookie(data: bytes, number: bytes) -> bytes:
    """The last cookie of the display; an Xauthority file is a run of five fields, four with their length."""
    at, found = 0, b""
    while at + 2 <= len(data):
        at += 2
        fields = []
        for _ in range(4):
            size = int.from_bytes(data[at : at + 2], "big")
            fields.append(data[at + 2 : at + 2 + size])
            at += 2 + size
        _, display, name, cookie = fields
        if at <= len(data) and name == COOKIE_NAME and display in (number, b""):
            found = cookie
    return found


def written_cookie(number: int, cookie: bytes) -> bytes:
    """Return an Xauthority file with one cookie, for every name of this host."""
    fields = (b"", str(number).encode(), COOKIE_NAME, cookie)
    return b"\xff\xff" + b"".join(len(field).to_bytes(2, "big") + field for field in fields)
