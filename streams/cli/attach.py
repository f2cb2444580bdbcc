"""Connects a verb to the running system, and ends the verb in order when it is interrupted.

1. streams.cli.wait_start finds the system, and waits for one that starts.
2. The first signal asks the verb to end. A second one cancels it, if it comes more than SECOND_S later:
   `uv run` delivers each twice. A closed terminal counts as a signal, unless that is ignored (nohup).
"""

import asyncio
import signal
import stat
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import uvloop

from schemas.errors import LucidError, Misuse, NotFound, Unavailable
from schemas.ports import Jet
from schemas.subjects import SESSION_ID
from streams.cli.wait_start import ASKS, connection
from streams.control.client import call
from streams.roles.drivers import COPY_HINT, Installation, mode_at

SECOND_S = 1.0
Result = TypeVar("Result")


@asynccontextmanager
async def attached(*, serving: bool = False, name: str = ASKS) -> AsyncIterator[Jet]:
    """A connection to the running system. serving: wait until commands are answered, too.

    name: of this process, for the server and in traces.

    Raises Unavailable (server.absent, services.absent, nats.*), Denied (nats.*).
    """
    async with connection(Installation.here(), name, serving=serving) as jet:
        yield jet


def ask(command: str, body: Mapping[str, Any]) -> dict[str, Any]:
    """Send one command to the running system; return its answer. Raises as `attached`, and its errors."""

    async def work() -> dict[str, Any]:
        async with attached(serving=True) as jet:
            return await call(jet, command, body)

    return run(work())


def is_copy(target: str, complete: bool) -> bool:
    """Whether `target` is a folder here. A session of the same name wins over an incomplete folder.

    Raises Unreadable.
    """
    return stat.S_ISDIR(mode_at(Path(target))) and (complete or SESSION_ID.fullmatch(target) is None)


@contextmanager
def looking_up(target: str, incomplete: LucidError) -> Iterator[None]:
    """Translates the errors of a block that looks up the session `target`, which is no copy here (`is_copy`).

    Raises `incomplete`: no such session, but a file or folder of that name. Misuse (evidence.none), NotFound
    (evidence.absent): not even a session's name. Unavailable (server.absent): as `attached`, but says both.
    """
    if SESSION_ID.fullmatch(target) is None:
        if mode_at(Path(target)):
            raise Misuse(f"{target} is no evidence copy", code="evidence.none", hint=COPY_HINT)
        raise NotFound(f"there is no {target}", code="evidence.absent")
    try:
        yield
    except (Unavailable, NotFound) as error:
        if error.code in ("server.absent", "session.absent") and mode_at(Path(target)):
            raise incomplete from None
        if error.code != "server.absent":
            raise
        text = f"there is no folder {target} here, and no session of that name can be looked for"
        raise Unavailable(f"{text}: {error.message}", code=error.code, hint=error.hint) from None


def run(work: Coroutine[Any, Any, Result], on_signal: Callable[[], None] | None = None) -> Result:
    """Run to the end. First SIGINT, SIGTERM or SIGHUP: `on_signal`, or cancel; the second: cancel.

    Raises KeyboardInterrupt when it was cancelled.
    """
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        return uvloop.run(_guarded(work, on_signal))
    finally:
        for number, handler in before.items():  # a loop that ends leaves the system's default
            signal.signal(number, handler)


async def _guarded(work: Coroutine[Any, Any, Result], on_signal: Callable[[], None] | None) -> Result:
    task, first_s = asyncio.ensure_future(work), 0.0

    def signalled() -> None:
        nonlocal first_s
        if first_s == 0:
            first_s = time.monotonic()
            (on_signal or task.cancel)()
        elif time.monotonic() - first_s > SECOND_S:
            task.cancel()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, signalled)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        loop.add_signal_handler(signal.SIGHUP, signalled)
    try:
        return await task
    except asyncio.CancelledError:
        if first_s:
            raise KeyboardInterrupt from None
        raise
