"""Killing processes of a running system, and knowing where each kill struck; for tests."""

import asyncio
import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

import psutil

from infra.jetstream import Message
from schemas import subjects
from schemas.errors import LucidError
from schemas.events.session import Sealed, SealStarted
from streams.event_store.session_log import read_event
from tests.support.machine.waiting import PATIENCE_S
from tests.support.pipeline.prepared import Prepared
from tests.support.pipeline.processes import Processes

POLL_S = 0.005


@dataclass
class Progress:
    """How far one session has come, as its events tell everyone."""

    system: Processes = field(repr=False)
    prepared: Prepared = field(repr=False)
    acked: int = 0
    """Fragments that the stream has acknowledged to the host."""
    recorded: list[int] = field(default_factory=list)
    """Index of every recorded chunk, in stream order; a doubled one would stand here twice."""
    fragments: int = 0
    """Fragments in recorded chunks."""
    stored: list[int] = field(default_factory=list)
    ended: bool = False
    seal_started: bool = False
    sealed_ns: int = 0
    """When the stream took `Sealed`."""
    killed: set[int] = field(default_factory=set)

    async def follow(self) -> None:
        """Keep it until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._chunks())
            tasks.create_task(self._lifecycle())

    async def until(self, done: Callable[[], bool], patience_s: float = 120.0) -> None:
        end_s = asyncio.get_running_loop().time() + patience_s
        while not done():
            assert asyncio.get_running_loop().time() < end_s, self
            await asyncio.sleep(POLL_S)

    async def until_acked(self, fragments: int) -> None:
        await self.until(lambda: self.acked >= fragments)

    async def until_longer(self, indices: list[int], than: int) -> None:
        await self.until(lambda: len(indices) > than)

    async def _chunks(self) -> None:
        name = self.prepared.session
        filters = [subjects.chunk(step, name) for step in (subjects.RECORDED, subjects.STORED)]
        async for item in self.system.jet.follow(subjects.CHUNKS, filters):
            if not isinstance(item, Message):
                continue
            if subjects.step_of(item.subject) == subjects.STORED:
                self.stored.append(_member(item.data, b'"index":'))
            elif b'"lucid.chunk.ended.' in item.data:
                self.ended = True
            else:
                self.recorded.append(_member(item.data, b'"index":'))
                first, last = (_member(item.data, name) for name in (b'"first_seq":', b'"last_seq":'))
                self.fragments += last - first + 1

    async def _lifecycle(self) -> None:
        filters = [subjects.lifecycle(self.prepared.session)]
        async for item in self.system.jet.follow(subjects.LIFECYCLE, filters):
            event = read_event(item.data) if isinstance(item, Message) else None
            self.seal_started = self.seal_started or isinstance(event, SealStarted)
            if isinstance(event, Sealed) and isinstance(item, Message):
                self.sealed_ns = item.stream_time_ns


@dataclass(frozen=True)
class Kill:
    """One process that was killed, and how far the session had come at that moment."""

    victim: str
    pid: int
    at_ns: int
    acked: int
    fragments: int
    recorded: int
    stored: int
    sealing: bool

    def __str__(self) -> str:
        where = "sealing" if self.sealing else "recording"
        return (
            f"kill -9 {self.victim:9} pid {self.pid:7}  {where:9}  acked {self.acked:4}  recorded "
            f"{self.fragments:4} fragments {self.recorded:3} chunks  stored {self.stored:3} chunks"
        )


async def kill(progress: Progress, victim: str) -> Kill:
    """Kill -9 one process, as soon as it runs."""
    end_s = asyncio.get_running_loop().time() + PATIENCE_S
    while (struck := _kill(progress, victim)) is None:
        assert asyncio.get_running_loop().time() < end_s, f"{victim} does not come back"
        await asyncio.sleep(POLL_S)
    progress.killed.add(struck.pid)
    print(f"{len(progress.killed):3}  {struck}")
    return struck


def _kill(progress: Progress, victim: str) -> Kill | None:
    """None: it does not run now."""
    pid = progress.system.victims.get(victim, 0)
    if not pid or pid in progress.killed or not _ours(pid):
        return None
    struck = Kill(
        victim,
        pid,
        time.time_ns(),
        progress.acked,
        progress.fragments,
        len(progress.recorded),
        len(progress.stored),
        progress.ended,
    )
    os.kill(pid, signal.SIGKILL)
    return struck


def _ours(pid: int) -> bool:
    """Whether it is a living child of this process: a number may have gone to somebody else."""
    try:
        process = psutil.Process(pid)
        return bool(process.ppid() == os.getpid() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


async def answered(system: Processes, patience_s: float = PATIENCE_S) -> None:
    """Return when the conductor answers again."""
    async with asyncio.timeout(patience_s):
        while True:
            with suppress(LucidError):
                await system.jet.request(subjects.command("ping"), b"{}", 1)
                return
            await asyncio.sleep(POLL_S)


def _member(data: bytes, name: bytes) -> int:
    """A whole number of a JSON text, by its member's name, without reading the rest."""
    start = data.index(name) + len(name)
    end = start
    while data[end : end + 1].isdigit():
        end += 1
    return int(data[start:end])
