"""Sends a caller's commands to the command service, with the caller's own token.

1. The command service decides; nothing is decided twice here.
2. The address of the caller goes with its command, for the audit chain.
3. A request with an Idempotency-Key is carried out once, however often it is sent: the key becomes the
   cause of its command.
"""

import secrets
from collections.abc import Mapping
from typing import Annotated, Any

from blake3 import blake3
from fastapi import Depends, Header, Request

from schemas.access import Caller
from schemas.config.logs import logger
from schemas.errors import Denied, LucidError, RefusedByState
from schemas.format.digest import h
from schemas.ports import Credential
from streams.api.auth import caller_of, credential_of
from streams.api.looked import Reason
from streams.api.parts import ApiParts, parts_of
from streams.control.client import call

IdempotencyKey = Annotated[
    str | None,
    Header(
        max_length=200,
        description="Any new text. A repeated request with the same key is carried out once.",
    ),
]

log = logger("lucid.api")


class Commands:
    """The commands of one request."""

    def __init__(
        self, parts: ApiParts, caller: Caller, credential: Credential, cause: str, reason: str
    ) -> None:
        """reason: the caller's words for the audit chain."""
        self._jet, self._own, self._caller = parts.jet, parts.own_answers, caller
        self._credential, self._cause, self._reason = credential, cause, reason
        self._from = {"address": caller.address} if caller.address else {}

    def new_session_id(self, host: str = "s") -> str:
        """An id for a session that the request does not name; a repeated request gets the same one."""
        made = h(self._cause.encode()).hex() if self._cause else secrets.token_hex(10)
        return f"{host}-{made[:20]}"

    async def send(self, name: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """The answer of the command service. Raises its errors, and Unavailable."""
        more = {"cause": self._cause} if self._cause else {}
        if self._reason:
            more["audit_reason"] = self._reason
        return await call(self._jet, name, {**body, **more, **self._from}, credential=self._credential)

    async def ask(self, name: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """The answer to a question, which has no cause."""
        found = await self._own.answer(self._caller, name, body)
        if found is not None:
            return found
        return await call(self._jet, name, {**body, **self._from}, credential=self._credential)

    async def show(self, session_id: str) -> dict[str, Any]:
        """One session, as its log tells."""
        return await self.ask("show", {"session": session_id, "waiting": False})

    async def details(self, session_id: str) -> dict[str, Any] | None:
        """The descriptive members of a session, and their revision; None: the caller may not read them."""
        try:
            return await self.ask("details", {"session": session_id})
        except (Denied, RefusedByState):
            return None

    async def details_after(self, session_id: str) -> dict[str, Any] | None:
        """As `details`, after a command was carried out: no error of this question takes its answer away."""
        try:
            return await self.details(session_id)
        except LucidError as error:
            log.warning("details_unread", session=session_id, error=error)
            return None


async def commands_of(
    request: Request, idempotency_key: IdempotencyKey = None, reason: Reason = None
) -> Commands:
    """The commands of this request. Async: otherwise the framework runs it in a thread."""
    cause = cause_of(request, idempotency_key)
    return Commands(parts_of(request), caller_of(request), credential_of(request), cause, reason or "")


def cause_of(request: Request, key: str | None) -> str:
    """The cause that a caller's Idempotency-Key stands for; empty: there is no key.

    It is the caller's, also with another token.
    """
    if key is None:
        return ""
    asked = "\0".join((caller_of(request).subject, request.method, request.url.path, key))
    return f"idem-{blake3(asked.encode()).hexdigest(16)}"


Sending = Annotated[Commands, Depends(commands_of)]
