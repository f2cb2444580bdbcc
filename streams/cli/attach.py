"""Owns how a verb finds the running system, and how it ends when it is interrupted.

1. NATS_URL wins; else run.json of the data directory says where. Nothing running is an error with its cure.
2. The first signal asks; a second one cancels, when it comes more than SECOND_S later: `uv run` delivers
   each twice. A terminal that is closed asks as well, unless that is ignored (nohup).
"""

import asyncio
import signal
import stat
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import uvloop

from schemas.errors import LucidError, Misuse, NotFound, Unavailable
from schemas.ports import Jet
from schemas.subjects import SESSION_ID
from streams.cli import output
from streams.evidence import COPY_HINT, mode_at
from streams.wiring import Installation, connected

SECOND_S = 1.0
STARTING_S = 15.0
"""How long a system that holds the lock may take until it says where it is."""

Result = TypeVar("Result")


@asynccontextmanager
async def attached() -> AsyncIterator[Jet]:
    """A connection to the running system. Raises Unavailable (server.absent, nats.unreachable)."""
    async with connected(await server_url(Installation.here()), "lucid-cli") as jet:
        yield jet


async def server_url(here: Installation) -> str:
    """Where NATS is. Raises Unavailable (server.absent)."""
    if here.settings.nats_url:
        return here.settings.nats_url
    data = here.data
    run = data.read_run()
    with suppress(TimeoutError):
        async with asyncio.timeout(STARTING_S):
            while run is None and data.is_owned():
                await asyncio.sleep(0.1)
                run = data.read_run()
    if run is None:
        raise Unavailable(
            f"nothing is running for {output.home(data.path)}",
            code="server.absent",
            hint="start it: lucid up (or set NATS_URL)",
        )
    return str(run["nats_url"])


def is_copy(target: str, complete: bool) -> bool:
    """Whether `target` is a folder here. One that is not complete gives way to a session of its name.

    Raises Unreadable.
    """
    return stat.S_ISDIR(mode_at(Path(target))) and (complete or SESSION_ID.fullmatch(target) is None)


@contextmanager
def named(target: str, incomplete: LucidError) -> Iterator[None]:
    """Around a question for the session `target`, which is no copy here (`is_copy`).

    Raises `incomplete`: there is no such session, but a file or folder. Misuse (evidence.none), NotFound
    (evidence.absent): it is no name of a session either. Unavailable (server.absent): as `attached`, but
    says both.
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
        told = f"there is no folder {target} here, and no session of that name can be looked for"
        raise Unavailable(f"{told}: {error.message}", code=error.code, hint=error.hint) from None


def run(work: Coroutine[Any, Any, Result], on_signal: Callable[[], None] | None = None) -> Result:
    """Run to the end. First SIGINT, SIGTERM or SIGHUP: `on_signal`, or cancel; the second: cancel.

    Raises KeyboardInterrupt when it was cancelled.
    """
    return uvloop.run(_guarded(work, on_signal))


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
