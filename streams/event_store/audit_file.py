"""Records each export of a recording or a key: logs/audit.ndjson in the data directory.

1. A line is durable before the bytes that it records leave.
2. Lines are only ever added; each is one JSON object.
"""

import json

from schemas.ports import DataDir
from streams.scheduling.clock import now_us

AUDIT = "audit.ndjson"


def audit(data: DataDir, what: str, session: str, uid: bytes, **more: str | int) -> None:
    """Add one line. what: the event in the past tense, such as `key_exported`."""
    record = {
        "at_us": now_us(),
        "who": data.user(),
        "what": what,
        "session": session,
        "uid": uid.hex(),
    }
    data.add_log_line(AUDIT, json.dumps(record | more, ensure_ascii=True).encode() + b"\n")
