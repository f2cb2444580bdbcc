"""Asks every process of the installation for its measurements, and remembers which processes there are.

1. Each process answers on `lucid.metrics`. The wait ends when all known processes have answered, at the
   latest after WAIT_S: a process that hangs delays nothing else.
2. A process is known when it has answered once, or when another one says that it should run. It is forgotten
   when it says that it leaves, or after FORGET_S without an answer, unless somebody still expects it.
3. Requests within OLDEST_S share one look: the page needs no token, and costs the others nothing more.
4. Answers are bounded. Of too many processes those that are expected come first, then those that answered
   before; of too many bytes the largest answers are left out. The page counts everything that it lacks.
5. Where all places are taken, a process gets the place of one of its own role that is silent. One of an
   expected role gets the place of one of another role, then of the role that has most.
6. A name is kept: `worker@a`, `worker@a#2`. A process that starts takes the first name of its role that
   nobody answers for. At the first look the older process has the lower number.
"""

import asyncio
import re
import time
from collections import Counter
from collections.abc import Collection, Mapping
from typing import NamedTuple

from schemas import subjects
from schemas.config.logs import logger
from schemas.errors import LucidError
from schemas.ports import Jet
from schemas.ports.metrics import Samples
from streams.api.process_answers import PROCESS, Families, read_answers

WAIT_S = 0.5
OLDEST_S = 1.0
FORGET_S = 300.0
PROCESSES_MOST = 500
ANSWER_BYTES_MOST = 900_000
"""A process with all its series has less (infra/telemetry/metrics.py)."""
ALL_BYTES_MOST = 32 << 20
"""A worker has 30 kB, and a service of many routes ten times that."""
HEAD = re.compile(
    rb'\{ ?"process": ?"([^"\\]{1,100})", ?"instance": ?"([^"\\]{1,100})"(?:, ?"began_us": ?(\d{1,18})\b)?'
)
"""So begins an answer. The rest of it is not read before all have come."""
SILENT, TOO_MANY, TOO_LARGE, UNREADABLE = "silent", "too_many", "too_large", "unreadable"
REASONS = (SILENT, TOO_MANY, TOO_LARGE, UNREADABLE)
"""Why the page lacks the measurements of a process."""

log = logger("lucid.metrics")


class Process(NamedTuple):
    """One run of a process, in the order in which names are given."""

    role: str
    began_us: int
    instance: str


class Seen(NamedTuple):
    """One look at all processes. up: by name, whether the process answered. missing: counts by reason."""

    families: Families
    up: Mapping[str, bool]
    missing: Mapping[str, int]


class Processes:
    """One for each application; used from one event loop."""

    def __init__(self, jet: Jet, own: Samples) -> None:
        self._jet, self._own = jet, own
        self._heard_s: dict[Process, float] = {}
        self._names: dict[Process, str] = {}
        self._expected: set[str] = set()
        self._turn = asyncio.Lock()
        self._seen: tuple[float, Seen] | None = None
        self._round: _Round | None = None
        self._silent: frozenset[Process] = frozenset()
        """Those that are known, and have not answered at the last look."""

    async def look(self) -> Seen:
        """The measurements of all processes, at most OLDEST_S old."""
        async with self._turn:
            if self._seen is None or time.monotonic() - self._seen[0] > OLDEST_S:
                found = await self._ask()
                self._seen = time.monotonic(), found
            return self._seen[1]

    def leave(self, raw: bytes) -> None:
        """Forget a process that has ended in order. raw: the head of its answers."""
        process = _process(raw)
        if process is None:
            return
        if self._heard_s.pop(process, None) is not None:
            self._names.pop(process, None)
            if self._round is not None:
                self._round.leave(process)

    async def _ask(self) -> Seen:
        round_of = self._round = _Round(self._heard_s, self._expected, self._silent)
        round_of.take(self._own.sample())
        try:
            await self._jet.request_all(subjects.METRICS, b"", WAIT_S, round_of.take)
        except LucidError as error:
            log.info("processes_unasked", error=error)
        self._round = None
        answers, missing = dict(round_of.answers), round_of.missing.copy()  # a late answer may still come
        missing[TOO_MANY] = len(round_of.refused)
        self._forget()
        self._silent = frozenset(self._heard_s.keys() - answers.keys())
        self._name(answers)
        named = {self._names[process]: raw for process, raw in answers.items()}
        before = self._seen[1].families if self._seen else {}
        whole = {name: raw for name, raw in named.items() if raw}
        read = await asyncio.to_thread(read_answers, whole, before)
        missing[UNREADABLE] += len(read.unreadable)
        missing[TOO_LARGE] += read.left_out
        self._expected = set(sorted(read.expected)[:PROCESSES_MOST])
        up = {name: name in named for name in sorted({*self._names.values(), *self._expected})}
        missing[SILENT] = len(up) - sum(up.values())
        return Seen(read.families, up, {why: missing[why] for why in REASONS})

    def _forget(self) -> None:
        oldest_s = time.monotonic() - FORGET_S
        for process in [one for one, at_s in self._heard_s.items() if at_s < oldest_s]:
            del self._heard_s[process]
        for process in self._names.keys() - self._heard_s.keys():
            del self._names[process]

    def _name(self, answers: Collection[Process]) -> None:
        """Name each process that has answered and has no name yet."""
        holders = {name: process for process, name in self._names.items()}
        tried: Counter[str] = Counter()
        for process in sorted(one for one in answers if one not in self._names):
            while True:
                tried[process.role] += 1
                name = shown_name(process.role, tried[process.role])
                holder = holders.get(name)
                if holder is None or holder not in answers:
                    break
            if holder is not None:
                del self._names[holder]
                self._heard_s.pop(holder, None)
            self._names[process] = name
            self._heard_s.setdefault(process, time.monotonic())


class _Round:
    """The answers to one request. An answer that is left out is empty."""

    def __init__(
        self, heard_s: dict[Process, float], expected: Collection[str], silent: Collection[Process]
    ) -> None:
        self._heard_s, self._expected, self._silent = heard_s, expected, silent
        self._waited = {*heard_s, *expected}
        self._is_known = bool(self._waited)
        self.answers: dict[Process, bytes] = {}
        self.refused: set[Process] = set()
        self.missing: Counter[str] = Counter()
        self._bytes = 0

    def take(self, raw: bytes) -> bool:
        """Keep one answer; return whether all known processes have answered."""
        process = _process(raw)
        if process is None:
            self.missing[UNREADABLE] += 1
        elif process not in self.answers:
            if process in self._heard_s or self._has_place(process):
                self._heard_s[process] = time.monotonic()
                self._keep(process, raw)
            elif len(self.refused) < PROCESSES_MOST:
                self.refused.add(process)
        return self._is_known and not self._waited

    def leave(self, process: Process) -> None:
        """Leave out a process: it answers no more."""
        self._waited.discard(process)
        self._bytes -= len(self.answers.pop(process, b""))

    def _has_place(self, process: Process) -> bool:
        """Whether there is a place for a new process; a less wanted one gives it the last one."""
        if len(self._heard_s) < PROCESSES_MOST:
            return True
        given = self._less_wanted(process)
        if given is None:
            return False
        del self._heard_s[given]
        if given in self.answers and len(self.refused) < PROCESSES_MOST:
            self.refused.add(given)
        self.leave(given)
        return True

    def _less_wanted(self, process: Process) -> Process | None:
        """The process that gives its place; of several the one that is known for the shortest time."""
        known, role = self._heard_s, process.role
        for one in self._silent:
            if one.role == role and one in known and one not in self.answers:
                return one
        if role not in self._expected:
            return None
        unexpected = (one for one in reversed(known) if one.role not in self._expected)
        if (found := next(unexpected, None)) is not None:
            return found
        counts = Counter(one.role for one in known)
        largest, most = counts.most_common(1)[0]
        return (
            next(one for one in reversed(known) if one.role == largest) if most > counts[role] + 1 else None
        )

    def _keep(self, process: Process, raw: bytes) -> None:
        self._waited -= {process, process.role}
        self.answers[process] = raw
        self._bytes += len(raw)
        if len(raw) > ANSWER_BYTES_MOST:
            self._leave_out(process)
        while self._bytes > ALL_BYTES_MOST:
            self._leave_out(max(self.answers, key=lambda one: len(self.answers[one])))

    def _leave_out(self, process: Process) -> None:
        self._bytes -= len(self.answers[process])
        self.answers[process] = b""
        self.missing[TOO_LARGE] += 1


def _process(raw: bytes) -> Process | None:
    """The process that an answer names; None: it is none of ours."""
    head = HEAD.match(raw)
    if head is None or PROCESS.fullmatch(head[1].decode(errors="replace")) is None:
        return None
    return Process(head[1].decode(), int(head[3] or 0), head[2].decode(errors="replace"))


def shown_name(role: str, number: int) -> str:
    """The name of a process. Processes of one role have a number behind it, from the second on."""
    return f"{role}#{number}" if number > 1 else role
