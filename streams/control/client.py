"""Sends commands to the command service: `call`, one request and one answer, JSON both ways.

    request {…, token}   answer {"ok": {…}}  or  {"error": {kind, code, message, hint, place}}

1. An error arrives as the same class with the same code, as if it had been raised on this side.
2. Every command carries a `cause`. A request without one gets a new one here. A caller that repeats a request
   after Unavailable gives the same cause: the command is carried out once.
3. The token is the caller's: that of the connection, or one that the caller of `call` names. The token of a
   host is made for this one request.
"""

import json
import secrets
from collections.abc import Mapping
from typing import Any

from pydantic_core import to_json

from schemas import errors, subjects
from schemas.errors import LucidError, Unavailable
from schemas.ports import Credential, Jet
from schemas.ports.telemetry import CURRENT, REQUEST

REQUEST_HEADER = "x-request-id"
"""Of a command that serves a request over HTTP: its log lines name that one."""
TIMEOUT_S = 60.0
"""Longer than any wait of a command on the other side."""

KINDS: dict[str, type[LucidError]] = {
    kind.__name__: kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, LucidError)
}


async def call(
    jet: Jet,
    name: str,
    body: Mapping[str, Any],
    timeout_s: float = TIMEOUT_S,
    credential: Credential | None = None,
) -> dict[str, Any]:
    """Send the command `name` to streams/control/commands.py, and return its answer.

    credential: gives the token; None: that of the connection does.
    Raises the error of the command; Unavailable when nobody answers: it may have been carried out all the
    same.
    """
    fields: dict[str, Any] = {"cause": secrets.token_hex(12), **body}
    fields["token"] = (credential or jet.credential)(name, fields)
    named = {"traceparent": CURRENT.get(), REQUEST_HEADER: REQUEST.get()}
    headers = {header: value for header, value in named.items() if value}
    raw = await jet.request(subjects.command(name), json.dumps(fields).encode(), timeout_s, headers or None)
    return read_answer(raw)


def answer(result: Mapping[str, Any]) -> bytes:
    """The text of an answer."""
    return to_json({"ok": result})


def answer_error(error: LucidError) -> bytes:
    """The text of a refusal."""
    return json.dumps({"error": error_fields(error)}).encode()


def error_fields(error: LucidError) -> dict[str, str]:
    """An error as the fields of an answer."""
    fields = {name: getattr(error, name) for name in ("message", "code", "hint", "place")}
    return {"kind": _kind(error), **fields}


def read_error(fields: Mapping[str, str]) -> LucidError:
    """The error in the fields of an answer. Raises KeyError, TypeError: it is none."""
    kind = KINDS[fields["kind"]]
    return kind(fields["message"], code=fields["code"], hint=fields["hint"], place=fields["place"])


def read_answer(raw: bytes) -> dict[str, Any]:
    """The fields of an answer. Raises the error that it holds, Unavailable (command.answer)."""
    try:
        fields = json.loads(raw)
        if "ok" in fields:
            result: dict[str, Any] = fields["ok"]
            return result
        raised = read_error(fields["error"])
    except (ValueError, KeyError, TypeError):
        raise Unavailable(
            f"the command service sent no answer of ours: {raw[:80]!r}", code="command.answer"
        ) from None
    raise raised


def _kind(error: LucidError) -> str:
    """The name of the nearest class that both sides know."""
    return next(kind.__name__ for kind in type(error).__mro__ if kind.__name__ in KINDS)
