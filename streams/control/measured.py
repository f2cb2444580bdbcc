"""Counts commands, their times and their errors, and names their session in the log of their work."""

import json
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress

from schemas.config.logs import bound
from schemas.ports.metrics import Meter, count_error
from schemas.ports.telemetry import REQUEST
from schemas.subjects import SESSION_ID

REFUSED = b'{"error":'
"""So begins the answer of a command that was not carried out (streams/control/client.py)."""

Answer = Callable[[str, bytes], Awaitable[bytes]]


def measured(meter: Meter, answer: Answer) -> Answer:
    """The same answers, counted by command and outcome."""

    async def answered(name: str, raw: bytes) -> bytes:
        began_s = time.perf_counter()
        with bound(session=session_of(raw), request_id=REQUEST.get()):
            found = await answer(name, raw)
        seconds = time.perf_counter() - began_s
        code = code_of(found)
        meter.counter(
            "lucid_commands", "Commands by outcome.", command=name, outcome="refused" if code else "ok"
        ).add()
        meter.histogram("lucid_command_seconds", "From a command to its answer.", command=name).observe(
            seconds
        )
        if code:
            count_error(meter, code)
        return found

    return answered


def session_of(raw: bytes) -> str:
    """The session that a request names; empty: none, or nothing that can be one."""
    with suppress(ValueError, AttributeError, TypeError, RecursionError):
        named = json.loads(raw).get("session")
        return named if SESSION_ID.fullmatch(named) else ""
    return ""


def code_of(found: bytes) -> str:
    """The code of an answer that is a refusal; empty: it is none."""
    if not found.startswith(REFUSED):
        return ""
    with suppress(ValueError, KeyError, TypeError):
        return str(json.loads(found)["error"]["code"])
    return "command.bug"
