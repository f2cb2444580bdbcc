"""Sends a caller's commands to the command service, with the caller's own token.

1. The command service decides; nothing is decided twice here.
2. The address of the caller goes with its command, for the audit chain.
3. A request with an Idempotency-Key is carried out once, however often it is sent: the key becomes the
   cause of its command. It belongs to the first request that was well formed; another content is refused.
"""

import json
import secrets
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
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
from streams.event_store.request_keys import RequestKeys

IdempotencyKey = Annotated[
    str | None,
    Header(
        max_length=200,
        description="Any new text. A repeated request with the same key is carried out once; "
        "another content under the same key is refused.",
    ),
]

log = logger("lucid.api")


@dataclass(frozen=True, slots=True)
class KeyedRequest:
    """The Idempotency-Key of one request. name: empty, there is none. content: of the request."""

    caller: str
    name: str
    content: bytes
    keys: RequestKeys

    @property
    def cause(self) -> str:
        """The cause of its commands; empty: each gets a new one."""
        return f"idem-{self.name}" if self.name else ""

    async def claim(self) -> None:
        """Return when the key belongs to this request. Raises RefusedByState (idempotency.reused)."""
        if self.name:
            await self.keys.claim(self.caller, self.name, self.content)


class Questions:
    """The questions of one request: they change nothing, and have no cause."""

    def __init__(self, parts: ApiParts, caller: Caller, credential: Credential) -> None:
        self._jet, self._own, self._caller = parts.jet, parts.own_answers, caller
        self._credential = credential
        self._from = {"address": caller.address} if caller.address else {}
        """For the audit chain."""

    async def ask(self, name: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """The answer to a question. Raises the errors of the command service, and Unavailable."""
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


class Commands(Questions):
    """The commands of one request."""

    def __init__(
        self, parts: ApiParts, caller: Caller, credential: Credential, keyed: KeyedRequest, reason: str
    ) -> None:
        """reason: the caller's words for the audit chain."""
        super().__init__(parts, caller, credential)
        self.keyed, self._reason = keyed, reason

    def new_session_id(self, host: str = "s") -> str:
        """An id for a session that the request does not name; a repeated request gets the same one."""
        made = h(self.keyed.cause.encode()).hex() if self.keyed.name else secrets.token_hex(10)
        return f"{host}-{made[:20]}"

    async def send(self, name: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """The answer of the command service. Raises its errors, Unavailable, and as `KeyedRequest.claim`."""
        await self.keyed.claim()
        more = {"cause": self.keyed.cause} if self.keyed.name else {}
        if self._reason:
            more["audit_reason"] = self._reason
        return await call(self._jet, name, {**body, **more, **self._from}, credential=self._credential)

    async def details_after(self, session_id: str) -> dict[str, Any] | None:
        """As `details`, after a command was carried out: no error of this question takes its answer away."""
        try:
            return await self.details(session_id)
        except LucidError as error:
            log.warning("details_unread", session=session_id, error=error)
            return None


async def questions_of(request: Request) -> Questions:
    """The questions of this request. Async: otherwise the framework runs it in a thread."""
    return Questions(parts_of(request), caller_of(request), credential_of(request))


async def commands_of(
    request: Request, idempotency_key: IdempotencyKey = None, reason: Reason = None
) -> Commands:
    """The commands of this request. Async: otherwise the framework runs it in a thread."""
    parts, caller = parts_of(request), caller_of(request)
    if idempotency_key is None:
        keyed = KeyedRequest(caller.subject, "", b"", parts.request_keys)
    else:  # the key is the caller's, also with another token
        asked = "\0".join((caller.subject, request.method, request.url.path, idempotency_key))
        name = blake3(asked.encode()).hexdigest(16)
        keyed = KeyedRequest(caller.subject, name, await _content(request), parts.request_keys)
    return Commands(parts, caller, credential_of(request), keyed, reason or "")


async def _content(request: Request) -> bytes:
    """The query and the body of a request; the same JSON in another form is the same content."""
    body = await request.body()
    with suppress(ValueError, RecursionError):  # no JSON: as it is
        body = json.dumps(json.loads(body), sort_keys=True).encode()
    query = json.dumps(sorted(request.query_params.multi_items())).encode()
    return query + b"\0" + body


Asking = Annotated[Questions, Depends(questions_of)]
Sending = Annotated[Commands, Depends(commands_of)]
