"""Owns the processes of our own that a supervisor keeps alive.

1. A child that ends is started again, after a pause that grows while it keeps ending.
2. A child dies with its supervisor, however that dies (`die_with`), and is asked before it is killed.
3. Ctrl-C at a terminal is the supervisor's alone: children have a session of their own.
4. It knows nothing of what its children do.
"""

import asyncio
import contextlib
import ctypes
import logging
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

PR_SET_PDEATHSIG = 1
STOP_S = 15.0
"""What a child may need to finish or hand back its work."""
BACKOFF_FIRST_S, BACKOFF_MOST_S = 0.2, 10.0
STEADY_S = 20.0
"""A child that lived this long was not ended by its own start."""

_log = logging.getLogger(__name__)


class Child:
    """One supervised process. `log`: where its output goes; None: where ours goes."""

    def __init__(
        self, name: str, command: Sequence[str], environment: Mapping[str, str], log: Path | None
    ) -> None:
        self.name = name
        self.starts = 0
        self._command = tuple(command)
        self._environment = {**os.environ, **environment}
        self._log = log
        self._process: asyncio.subprocess.Process | None = None
        self._supervisor: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int:
        """Of the process that runs now; 0 when none does."""
        return self._process.pid if self._process is not None and self._process.returncode is None else 0

    async def start(self) -> None:
        await self._spawn()
        self._supervisor = asyncio.create_task(self._supervise())

    async def stop(self) -> None:
        """Ask it to end, wait STOP_S, then kill it. A second call does nothing."""
        supervisor, self._supervisor = self._supervisor, None
        if supervisor is not None:
            supervisor.cancel()
            await asyncio.gather(supervisor, return_exceptions=True)
        if self._process is None or self._process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            self._process.terminate()
        try:
            async with asyncio.timeout(STOP_S):
                await self._process.wait()
        except TimeoutError:
            _log.warning("child_killed name=%s after_s=%g", self.name, STOP_S)
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()

    async def _spawn(self) -> None:
        with contextlib.ExitStack() as files:
            output = None if self._log is None else files.enter_context(self._log.open("ab"))
            self._process = await asyncio.create_subprocess_exec(
                *self._command,
                env=self._environment,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self.starts += 1
        _log.info("child_started name=%s pid=%d", self.name, self._process.pid)

    async def _supervise(self) -> None:
        pause_s, clock = BACKOFF_FIRST_S, asyncio.get_running_loop().time
        while True:
            assert self._process is not None
            began_s = clock()
            code = await self._process.wait()
            if clock() - began_s > STEADY_S:
                pause_s = BACKOFF_FIRST_S
            _log.warning("child_ended name=%s code=%d", self.name, code)
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, BACKOFF_MOST_S)
            with contextlib.suppress(OSError):  # no process or no memory left: the next round tries again
                await self._spawn()


def die_with(parent: int) -> None:
    """From now on this process is asked to end when `parent` is gone. Ends it at once when it is already."""
    with contextlib.suppress(AttributeError):  # only Linux has it
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        sys.exit(0)
