"""Owns how commands travel: one request, one answer, JSON both ways; and `call`, the caller's side.

    request {…}      answer {"ok": {…}}  or  {"error": {kind, code, message, hint, place}}

1. An error arrives as the same class with the same code, so a verb on this side of the wire treats it as if
   it had happened here.
2. Every command carries a `cause`; one is made here where the caller gives none. Who calls again after
   Unavailable gives the same one, and has asked once.
"""

import json
import secrets
from collections.abc import Mapping
from typing import Any

from schemas import errors, subjects
from schemas.errors import LucidError, Unavailable
from schemas.ports import Jet

TIMEOUT_S = 60.0
"""Longer than anything that a command waits for on the other side."""

KINDS: dict[str, type[LucidError]] = {
    kind.__name__: kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, LucidError)
}


async def call(jet: Jet, name: str, body: Mapping[str, Any], timeout_s: float = TIMEOUT_S) -> dict[str, Any]:
    """Ask for one command of streams.control.commands, and return its answer.

    Raises what the command raises; Unavailable when nobody answers, and then it may have been carried out.
    """
    said = {"cause": secrets.token_hex(12), **body}
    raw = await jet.request(subjects.command(name), json.dumps(said).encode(), timeout_s)
    return read_answer(raw)


def answer(result: Mapping[str, Any]) -> bytes:
    """The text of an answer."""
    return json.dumps({"ok": result}).encode()


def answer_error(error: LucidError) -> bytes:
    """The text of a refusal."""
    return json.dumps({"error": told(error)}).encode()


def told(error: LucidError) -> dict[str, str]:
    """An error as it travels."""
    said = {name: getattr(error, name) for name in ("message", "code", "hint", "place")}
    return {"kind": _kind(error), **said}


def untold(said: Mapping[str, str]) -> LucidError:
    """The error that travelled. Raises KeyError, TypeError: it is none."""
    kind = KINDS[said["kind"]]
    return kind(said["message"], code=said["code"], hint=said["hint"], place=said["place"])


def read_answer(raw: bytes) -> dict[str, Any]:
    """What the other side answered. Raises the error that it raised, Unavailable (command.answer)."""
    try:
        said = json.loads(raw)
        if "ok" in said:
            result: dict[str, Any] = said["ok"]
            return result
        raised = untold(said["error"])
    except (ValueError, KeyError, TypeError):
        raise Unavailable(f"the answer is not one: {raw[:80]!r}", code="command.answer") from None
    raise raised


def _kind(error: LucidError) -> str:
    """The name of the nearest class that both sides know."""
    return next(kind.__name__ for kind in type(error).__mro__ if kind.__name__ in KINDS)
