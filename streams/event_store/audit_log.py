"""Owns the record of who took recordings or keys out: logs/audit.ndjson in the data directory.

1. A line is durable before what it tells of leaves.
2. Lines are only ever added; each is one JSON object.
"""

import getpass
import json
import os
import time
from pathlib import Path

AUDIT = "audit.ndjson"


def audit(logs: Path, what: str, session: str, uid: bytes, **more: str | int) -> None:
    """Note that `what` (past tense, such as `key_exported`) happened to a session's contents."""
    said = {
        "at_us": time.time_ns() // 1000,
        "who": _who(),
        "what": what,
        "session": session,
        "uid": uid.hex(),
    }
    line = json.dumps(said | more, ensure_ascii=True).encode() + b"\n"
    file = os.open(logs / AUDIT, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.write(file, line)  # one write: lines of two processes do not mix
        os.fsync(file)
    finally:
        os.close(file)


def _who() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid-{os.getuid()}"
