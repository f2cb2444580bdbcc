"""The name of this machine as a host name of ours, and its free ports."""

import re
import socket
from contextlib import suppress


def own_host() -> str:
    """Return this machine's name, in the letters that host names may have."""
    return re.sub(r"[^A-Za-z0-9_-]", "-", socket.gethostname())[:64] or "host"


def held_port(wanted: int = 0, host: str = "127.0.0.1") -> socket.socket:
    """Return a socket that listens on `wanted` if that is free, else on any port: nobody else gets it."""
    for port in (wanted, 0):
        with suppress(OSError):
            return socket.create_server((host, port))
    raise OSError("no port is free")
