"""Owns what must stand beside a figure: the machine, its load, and the versions of all that took part."""

import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

from streams.bench import peers
from streams.roles.drivers import server_version

PACKAGES = ("lucid-sessions", "nats-py", "cryptography", "blake3", "zstandard", "pydantic")


def machine() -> dict[str, Any]:
    """Cores, memory, kernel, and how busy it is with other things now."""
    return {
        "cores": os.cpu_count() or 1,
        "processor": _processor(),
        "memory_bytes": psutil.virtual_memory().total,
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "load": round(os.getloadavg()[0], 2),
    }


def versions() -> dict[str, str]:
    """Of everything that took part."""
    found = {"python": platform.python_version(), "nats-server": server_version()}
    found |= {name: version(name) for name in PACKAGES}
    return found | {name: peers.version(name) for name in peers.installed()}


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")
