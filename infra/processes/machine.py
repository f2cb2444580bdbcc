"""The name of this machine as a host name of ours, and its free ports."""

import re
import socket


def own_host() -> str:
    """Return this machine's name, in the letters that host names may have."""
    return re.sub(r"[^A-Za-z0-9_-]", "-", socket.gethostname())[:64] or "host"


def free_port(wanted: int = 0, host: str = "127.0.0.1") -> int:
    """Return a port that nobody listens on: `wanted` if it is free. It may be taken before it is used."""
    for port in (wanted, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError:
                continue
            free: int = probe.getsockname()[1]
            return free
    raise OSError("no port is free")
