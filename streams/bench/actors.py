"""Runs each part of a measurement in a process of its own, an actor.

    parent                      actor
    spec, one JSON line   ──▶   imports, connects
                          ◀──   {"ready": …}
    "go"                  ──▶   the work that is timed
                          ◀──   {"done": …}
    end of input          ──▶   ends

1. An actor lives until the parent closes its input, so that its memory and CPU can still be read.
2. The spec holds secrets. It goes over a pipe, not over the command line.
3. An actor dies with its parent. Its standard error goes to a log.
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

JsonObject = dict[str, Any]
Role = Callable[["Cue", JsonObject], Awaitable[JsonObject]]
"""A module's function, found again by its name in the actor's process. It returns the report."""

LINE_BYTES = 16 << 20
END_S = 30.0
LOG_TAIL = 400
"""Characters of the log that an error shows."""


class Actor:
    """One process, from the parent's side. A context manager; leaving it ends the process."""

    def __init__(
        self, role: Role, spec: JsonObject, log: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        self._role, self._spec, self._log = f"{role.__module__}:{role.__qualname__}", spec, log
        self._environment = {**os.environ, **(environment or {})}
        self._process: asyncio.subprocess.Process
        self.greeting: JsonObject = {}
        """The report of `Cue.ready`."""

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
            self._write(json.dumps(self._spec))
            self.greeting = await self._read("ready")
        except BaseException as error:
            await self.__aexit__(type(error))
            raise
        return self

    async def __aexit__(self, kind: type[BaseException] | None = None, *_: object) -> None:
        """After an error the process is terminated: it may be in the middle of its work."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        if kind is not None:
            self.terminate()
        try:
            await asyncio.wait_for(self._process.wait(), END_S)
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()
            raise

    def go(self) -> None:
        """Send the signal that the actor waits for: to begin, or to stop."""
        self._write("go")

    def terminate(self) -> None:
        """End the process in the middle of its work."""
        with contextlib.suppress(ProcessLookupError):
            self._process.terminate()

    async def done(self) -> JsonObject:
        """Return the actor's report. Raises Unavailable (bench.actor)."""
        return await self._read("done")

    def _write(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line.encode() + b"\n")

    async def _read(self, kind: str) -> JsonObject:
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        if not line:
            await self._process.wait()
            tail = self._log.read_text(errors="replace").strip()[-LOG_TAIL:]
            raise Unavailable(
                f"{self._role} ended with {self._process.returncode}: {tail}", code="bench.actor"
            )
        report: JsonObject = json.loads(line)[kind]
        return report


class Cue:
    """The actor's side: when to begin, when to end."""

    async def ready(self, **report: Any) -> None:
        """Report that all is prepared; return when the parent says go."""
        _write({"ready": report})
        await self.go()

    async def go(self) -> None:
        """Return on the parent's next signal."""
        await asyncio.to_thread(sys.stdin.readline)

    async def ended(self) -> None:
        """Return when the parent closes the input."""
        await asyncio.to_thread(sys.stdin.read)


async def _play(role: Role) -> None:
    spec = json.loads(await asyncio.to_thread(sys.stdin.readline))
    cue = Cue()
    _write({"done": await role(cue, spec)})
    await cue.ended()


def _write(report: JsonObject) -> None:
    sys.stdout.write(json.dumps(report) + "\n")
    sys.stdout.flush()


def _main(name: str, parent: int) -> None:
    die_with(parent)
    module, _, function = name.partition(":")
    role: Role = getattr(import_module(module), function)
    uvloop.run(_play(role))


if __name__ == "__main__":
    _main(sys.argv[1], int(sys.argv[2]))
