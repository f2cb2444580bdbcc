"""Answers questions of HTTP callers in this process, so that none of them waits for the command service.

1. The caller and its reach are those of the command: one table permits both (handlers/access/commands.py).
2. A process that does not see the read models leaves lists and sums to the command service.
3. The errors that delay sessions come from the conductor, for all sessions at once, and count for DELAYS_S.
   While nobody tells them, an answer names none.
"""

import asyncio
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from schemas import subjects
from schemas.access import Caller
from schemas.config.logs import logger
from schemas.errors import LucidError
from schemas.ports import Jet
from streams.control.guard import permit_request
from streams.control.questions import Questions
from streams.control.requests import malformed

DELAYS_S = 1.0
WAIT_S, TIMEOUT_S = 0.1, 2.0
OF_READ_MODELS = ("list", "totals")

log = logger("lucid.api")

Body = dict[str, Any]


@dataclass(slots=True)
class Delays:
    """The errors that delay sessions, as the conductor told them last."""

    jet: Jet
    _told: Body = field(default_factory=dict)
    _due_s: float = 0
    _asked_s: float = 0
    _asking: "asyncio.Task[None] | None" = None
    _is_heard: bool = True

    async def of(self, session_id: str) -> Body:
        """The error that delays a session; empty: there is none, or nobody tells.

        Looks of one moment wait for one question, together not longer than WAIT_S.
        """
        now_s = time.monotonic()
        if now_s > self._due_s:
            if self._asking is None or self._asking.done():
                self._asked_s, self._asking = now_s, asyncio.create_task(self._ask())
            await asyncio.wait({self._asking}, timeout=max(self._asked_s + WAIT_S - now_s, 0))
        found: Body = self._told.get(session_id, {})
        return found

    async def _ask(self) -> None:
        try:
            self._told = json.loads(await self.jet.request(subjects.DELAYS, b"", TIMEOUT_S))
            self._is_heard = True
        except (LucidError, ValueError) as error:
            self._told = {}
            if self._is_heard:
                log.warning("delays_unknown", error=error)
            self._is_heard = False
        self._due_s = time.monotonic() + DELAYS_S


@dataclass(frozen=True, slots=True)
class OwnAnswers:
    """One for each process that serves HTTP."""

    questions: Questions

    async def answer(self, caller: Caller, name: str, body: Mapping[str, Any]) -> Body | None:
        """The answer; None: the command service has to tell. Raises as the command does."""
        handler = self.questions.handlers.get(name)
        if handler is None or (name in OF_READ_MODELS and not await self.questions.listed.is_built()):
            return None
        try:
            return await handler(await permit_request(self.questions.log, caller, name, dict(body)))
        except ValidationError as error:
            raise malformed(name, error) from None
