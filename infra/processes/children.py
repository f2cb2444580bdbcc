"""Supervises child processes: starts them, restarts them with back-off, ends them.

1. A child that ends is started again. The pause before that doubles while the child keeps ending.
2. A child dies with its supervisor, even if that is killed: `die_with` in our own programs, `dying_with_us`
   for foreign ones.
3. `stop` sends SIGTERM, waits STOP_S, then sends SIGKILL.
4. Ctrl-C at a terminal reaches the supervisor alone: each child has a session of its own.
5. This module must not know the work of its children.
"""

import asyncio
import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from schemas.config.backoff import Backoff
from schemas.config.logs import logger

PR_SET_PDEATHSIG = 1
STOP_S = 15.0
"""The time that a child may need to finish its work or hand it back."""
RESTART = Backoff(0.1, 10.0)
STEADY_S = 20.0
"""A child that lived this long was not ended by its own start."""

_DIE_WITH_PARENT = """
import ctypes, os, signal, sys
try:
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)
except AttributeError:
    pass
if os.getppid() != int(sys.argv[1]):
    sys.exit(1)
os.execv(sys.argv[2], sys.argv[2:])
"""
_log = logger(__name__)


class Child:
    """One supervised process."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        environment: Mapping[str, str],
        log: Path | None,
        *,
        inherits: tuple[int, ...] = (),
        before: Callable[[], object] = lambda: None,
        after: Callable[[int], object] = lambda pid: None,
    ) -> None:
        """log: the file for its output; None: it shares our own. environment: added to ours.

        inherits: descriptors that stay open in it. before, after: called around each start; `after` gets the
        pid. Both may raise OSError: the supervisor then tries again.
        """
        self.name = name
        self.starts = 0
        self._command = tuple(command)
        self._environment = {**os.environ, **environment}
        self._log = log
        self._inherits, self._before, self._after = inherits, before, after
        self._process: asyncio.subprocess.Process | None = None
        self._started = asyncio.Event()
        self._supervisor: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int:
        """The pid of the process that runs now; 0: none does."""
        return self._process.pid if self._process is not None and self._process.returncode is None else 0

    async def start(self) -> None:
        await self._spawn()
        self._supervisor = asyncio.create_task(self._supervise())

    async def restart(self) -> None:
        """End it; return when the supervisor has started it again."""
        self._started.clear()
        await self.end()
        await self._started.wait()

    async def stop(self) -> None:
        """End it for good. A second call does nothing."""
        supervisor, self._supervisor = self._supervisor, None
        if supervisor is not None:
            supervisor.cancel()
            await asyncio.gather(supervisor, return_exceptions=True)
        await self.end()

    async def end(self) -> None:
        """Ask it to end, wait STOP_S, then kill it. A supervisor starts it again."""
        process = self._process
        if process is None or process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            async with asyncio.timeout(STOP_S):
                await process.wait()
        except TimeoutError:
            _log.warning("child_killed", name=self.name, after_s=STOP_S)
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    async def _spawn(self) -> None:
        self._before()
        with contextlib.ExitStack() as files:
            output = None if self._log is None else files.enter_context(self._log.open("ab"))
            self._process = await asyncio.create_subprocess_exec(
                *self._command,
                env=self._environment,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=self._inherits,
                start_new_session=True,
            )
        self.starts += 1
        self._started.set()
        self._after(self._process.pid)
        _log.info("child_started", name=self.name, pid=self._process.pid)

    async def _supervise(self) -> None:
        failures, clock = 0, asyncio.get_running_loop().time
        while True:
            assert self._process is not None
            began_s = clock()
            code = await self._process.wait()
            if clock() - began_s > STEADY_S:
                failures = 0
            _log.warning("child_ended", name=self.name, code=code)
            failures += 1
            await asyncio.sleep(RESTART.delay_s(failures))
            try:
                await self._spawn()
            except OSError as error:  # no process, memory or disk left: the next round tries again
                _log.error("child_not_started", name=self.name, error=error)


def own_pid() -> int:
    """The pid that children of this process give to `die_with`."""
    return os.getpid()


def die_with(parent: int) -> None:
    """Let this process get SIGTERM when `parent` is gone. Exits at once if it is gone already."""
    with contextlib.suppress(AttributeError):  # only Linux has it
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        sys.exit(0)


def dying_with_us(command: Sequence[str]) -> tuple[str, ...]:
    """Return the command of a foreign program so that it gets SIGTERM when this process is gone."""
    return (sys.executable, "-I", "-S", "-c", _DIE_WITH_PARENT, str(os.getpid()), *command)
