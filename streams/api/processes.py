"""Asks every process of the installation for its measurements, and remembers which processes there are.

1. Each process answers on `lucid.metrics`. The wait ends when all known processes have answered, at the
   latest after WAIT_S: a process that hangs delays nothing else.
2. A process is known when it has answered once, or when another one says that it should run. It is forgotten
   after FORGET_S without an answer, unless somebody still expects it.
3. Requests within OLDEST_S share one look: the page needs no token, and costs the others nothing more.
4. An answer that is none of ours is left out. At most ANSWERS_MOST count.
"""

import asyncio
import json
import time
from contextlib import suppress
from typing import NamedTuple

from schemas import subjects
from schemas.config.logs import logger
from schemas.errors import LucidError
from schemas.ports import Jet
from schemas.ports.metrics import Answer, Samples

WAIT_S = 0.5
OLDEST_S = 1.0
FORGET_S = 300.0
ANSWERS_MOST = 64

log = logger("lucid.metrics")


class Seen(NamedTuple):
    """One look at all processes. up: by name, whether the process answered."""

    answers: dict[str, Answer]
    up: dict[str, bool]


class Processes:
    """One for each application; used from one event loop."""

    def __init__(self, jet: Jet, own: Samples) -> None:
        self._jet, self._own = jet, own
        self._answered_s: dict[str, float] = {}
        self._expected: set[str] = set()
        self._turn = asyncio.Lock()
        self._seen: tuple[float, Seen] | None = None

    async def look(self) -> Seen:
        """The measurements of all processes, at most OLDEST_S old."""
        async with self._turn:
            if self._seen is None or time.monotonic() - self._seen[0] > OLDEST_S:
                found = await self._ask()
                self._seen = time.monotonic(), found
            return self._seen[1]

    async def _ask(self) -> Seen:
        found: dict[tuple[str, str], Answer] = {}
        self._take(found, self._own.sample())
        known = {*self._answered_s, *self._expected}

        def take(raw: bytes) -> bool:
            self._take(found, raw)
            return bool(known) and known <= {name for name, _ in found}

        try:
            await self._jet.request_all(subjects.METRICS, b"", WAIT_S, take)
        except LucidError as error:
            log.info("processes_unasked", error=error)
        answers = named(dict(found))  # a late answer may still come
        self._expected = {str(name) for one in answers.values() for name in one.get("expects", ())}
        oldest_s = time.monotonic() - FORGET_S
        self._answered_s = {name: at_s for name, at_s in self._answered_s.items() if at_s > oldest_s}
        names = sorted({*self._answered_s, *self._expected, *answers})
        return Seen(answers, {name: name in answers for name in names})

    def _take(self, found: dict[tuple[str, str], Answer], raw: bytes) -> None:
        with suppress(ValueError, TypeError, KeyError, RecursionError):
            answer: Answer = json.loads(raw)
            process, instance = answer["process"], answer["instance"]
            if isinstance(process, str) and isinstance(instance, str) and len(found) < ANSWERS_MOST:
                found[process[:100], instance[:100]] = answer
                self._answered_s[process[:100]] = time.monotonic()


def named(found: dict[tuple[str, str], Answer]) -> dict[str, Answer]:
    """The answers by process. Processes of one name have a number behind it, from the second on."""
    answers: dict[str, Answer] = {}
    for process, instance in sorted(found):
        number = sum(1 for one, _ in found if one == process and _ < instance)
        answers[f"{process}#{number + 1}" if number else process] = found[process, instance]
    return answers
