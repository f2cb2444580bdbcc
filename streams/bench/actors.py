"""Owns the processes that a measurement is played by: how they start, begin on a word, report, and end.

    parent                      actor
    spec, one JSON line   ──▶   imports, connects
                          ◀──   {"ready": …}
    "go"                  ──▶   the work that is timed
                          ◀──   {"done": …}
    end of input          ──▶   ends

1. An actor is alive until it is told to end, so that its memory and CPU can still be read.
2. Secrets are in the spec: it goes over a pipe, not over the command line.
3. An actor dies with its parent. What it says beside the protocol goes to a log.
"""

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import Awaitable, Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import uvloop

from schemas.errors import Unavailable
from streams.roles.drivers import die_with

Said = dict[str, Any]
Role = Callable[["Cue", Said], Awaitable[Said]]

LINE_BYTES = 16 << 20
END_S = 30.0
LAST_WORDS = 400


class Actor:
    """One process, from the parent's side. A context manager; leaving it ends the process."""

    def __init__(
        self, role: str, spec: Said, log: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        """role: "module:function" of streams.bench."""
        self._role, self._spec, self._log = role, spec, log
        self._environment = {**os.environ, **(environment or {})}
        self._process: asyncio.subprocess.Process
        self.said: Said = {}
        """What it said when it was ready."""

    @property
    def pid(self) -> int:
        return self._process.pid

    async def __aenter__(self) -> "Actor":
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-m", "streams.bench.actors", self._role, str(os.getpid())),
                env=self._environment,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                limit=LINE_BYTES,
                start_new_session=True,
            )
        try:
            self._tell(json.dumps(self._spec))
            self.said = await self._hear("ready")
        except BaseException as error:
            await self.__aexit__(type(error))
            raise
        return self

    async def __aexit__(self, kind: type[BaseException] | None = None, *_: object) -> None:
        """After an error the process is not waited for: it may be in the middle of its work."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        with contextlib.suppress(ProcessLookupError):
            if kind is not None:
                self._process.terminate()
        try:
            await asyncio.wait_for(self._process.wait(), END_S)
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()
            raise

    def go(self) -> None:
        """Give it the word that it waits for: to begin, or to stop."""
        self._tell("go")

    async def done(self) -> Said:
        """What it reports. Raises Unavailable (bench.actor)."""
        return await self._hear("done")

    def _tell(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line.encode() + b"\n")

    async def _hear(self, word: str) -> Said:
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        if not line:
            await self._process.wait()
            last = self._log.read_text(errors="replace").strip()[-LAST_WORDS:]
            raise Unavailable(
                f"{self._role} ended with {self._process.returncode}: {last}", code="bench.actor"
            )
        said: Said = json.loads(line)[word]
        return said


class Cue:
    """The actor's side: when to begin, when to end."""

    async def ready(self, **said: Any) -> None:
        """Report that everything stands; return on the word to begin."""
        _say({"ready": said})
        await self.word()

    async def word(self) -> None:
        """Return on the parent's next word."""
        await asyncio.to_thread(sys.stdin.readline)

    async def ended(self) -> None:
        """Return when the parent wants no more."""
        await asyncio.to_thread(sys.stdin.read)


async def _play(role: Role) -> None:
    spec = json.loads(await asyncio.to_thread(sys.stdin.readline))
    cue = Cue()
    _say({"done": await role(cue, spec)})
    await cue.ended()


def _say(said: Said) -> None:
    sys.stdout.write(json.dumps(said) + "\n")
    sys.stdout.flush()


def _main(named: str, parent: int) -> None:
    die_with(parent)
    module, _, function = named.partition(":")
    role: Role = getattr(import_module(f"streams.bench.{module}"), function)
    uvloop.run(_play(role))


if __name__ == "__main__":
    _main(sys.argv[1], int(sys.argv[2]))
