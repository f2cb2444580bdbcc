"""Reads and writes the files beside a NATS store: configuration, address, limits.

    access.json    {port, password}   made once; the port changes only if another program took it
    limits.json    {max_file}         only ever grows
    server.conf    the configuration of the server, rewritten if it differs

1. Only their owner can read them: two of them hold the password.
2. A client that knows the address finds the server there after a restart, too.
"""

import contextlib
import json
import os
import secrets
from pathlib import Path
from typing import NamedTuple

from infra.disk.durable import write_private
from infra.nats_server.own_port import LOOPBACK

CONFIG, ACCESS, LIMITS = "server.conf", "access.json", "limits.json"
USER = "lucid"
PASSWORD_BYTES = 24
MEMORY_STORE_BYTES = 64 << 20


class Access(NamedTuple):
    """The server's port and password. port 0: not chosen yet."""

    port: int
    password: str


class Bounds(NamedTuple):
    """The server's limits in bytes: one message, one slow reader, the disk."""

    payload: int
    pending: int
    max_file: int
    synced: bool = True
    """Not in bytes: every message is fsynced before its acknowledgement."""


def read_access(data: Path) -> Access:
    """Return the address of last time; at the first start a new password, and no port."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        access = json.loads((data / ACCESS).read_bytes())
        port, password = int(access["port"]), str(access["password"])
        if 0 < port < 1 << 16 and password:
            return Access(port, password)
    return Access(0, secrets.token_urlsafe(PASSWORD_BYTES))


def keep_access(data: Path, access: Access) -> None:
    write_private(data / ACCESS, json.dumps(access._asdict()).encode())


def promised_bytes(data: Path) -> int:
    """Return the bytes that all streams together may take; 0: not fixed yet."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        return int(json.loads((data / LIMITS).read_bytes())["max_file"])
    return 0


def promise_bytes(data: Path, max_file: int) -> None:
    write_private(data / LIMITS, json.dumps({"max_file": max_file}).encode())


def write_config(data: Path, log: Path, access: Access, bounds: Bounds) -> Path:
    """Write the configuration if it differs (a full disk must not prevent a restart); return its path."""
    path, text = data / CONFIG, config(data, log, access, bounds).encode()
    with contextlib.suppress(OSError):
        if path.read_bytes() == text:
            return path
    write_private(path, text)
    return path


def config(data: Path, log: Path, access: Access, bounds: Bounds) -> str:
    return f"""server_name: "lucid"
host: "{LOOPBACK}"
port: {access.port}
max_payload: {bounds.payload}
max_pending: {bounds.pending}
write_deadline: "10s"
logfile: {quoted(log)}
logfile_size_limit: 10MB
logfile_max_num: 3
authorization {{ user: {quoted(USER)}, password: {quoted(access.password)} }}
jetstream {{
  store_dir: {quoted(data / "store")}
  sync_interval: {"always" if bounds.synced else '"1m"'}
  max_file_store: {bounds.max_file}
  max_memory_store: {MEMORY_STORE_BYTES}
}}
"""


def quoted(text: str | Path) -> str:
    """Return a string of the server's configuration. It has \\xHH, and not \\u as JSON has.

    Bytes of a path that are no UTF-8 stay as they are.
    """
    return '"' + "".join(map(_escaped, os.fsencode(text))) + '"'


def _escaped(byte: int) -> str:
    plain = 0x20 <= byte < 0x7F and chr(byte) not in '"\\'
    return chr(byte) if plain else f"\\x{byte:02x}"
