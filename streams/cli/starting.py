"""Finds the running system for a verb, and waits for one that is starting.

1. NATS_URL wins; else `run.json` of the data directory says where. It is read before every try to connect, so
   a verb that runs on follows a system that comes back at another address, and dials none that is stale.
2. A system that is starting, or whose services are, is waited for: WAIT_S, or as long as `--wait-start`
   (WAIT_START) says. One line on stderr says so.
3. Where nobody owns the data directory, nothing is starting: that is said at once, unless the verb was told
   how long to wait. An owner that was there is given SUCCESSOR_S to be followed by another one.
"""

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Annotated, Any

import typer

from schemas.config import values
from schemas.errors import Unavailable
from schemas.ports import Jet
from streams.cli import output
from streams.control.client import call
from streams.roles.drivers import Installation, Where, connected

WAIT_S = 60.0
SUCCESSOR_S = 10.0
AGAIN_S, PING_S = 0.2, 3.0
FIRST_TRY_S, TRY_S = 1.0, 5.0
"""How long one connection may take: the first less, for what keeps it waiting is to be told."""
TOLD_AFTER_S = 0.5
"""What is there sooner is not worth a word."""
REDRAWN_S = 1.0
LONGEST_S = 86_400.0
PASSING = frozenset(
    {
        *("server.starting", "server.absent", "services.absent"),
        *("nats.unreachable", "nats.hung_up", "nats.silent", "nats.refused", "nats.disconnected"),
        *("nats.timeout", "nats.nobody"),
    }
)
"""Codes of what a start cures."""


class _Asked:
    """What `--wait-start` said in this process; None: nothing."""

    seconds: float | None = None


def _parsed(given: str) -> str:
    try:
        _Asked.seconds = values.duration(0, LONGEST_S).parse(given) if given else None
    except ValueError:
        raise typer.BadParameter(f"{given[:40]!r} is no time such as 0, 30, 90s or 5m") from None
    return given


def with_option(command: Any) -> None:
    """Give a command, or each one of a group, the option `--wait-start`."""
    for one in getattr(command, "commands", {}).values():
        with_option(one)
    if not getattr(command, "commands", None):
        app = typer.Typer()
        app.command()(_option)
        command.params.extend(one for one in typer.main.get_command(app).params if one.name == "wait_start")


def _option(
    wait_start: Annotated[
        str,
        typer.Option(
            "--wait-start",
            metavar="TIME",
            callback=_parsed,
            expose_value=False,
            help="Wait so long for a system that starts; 0: not at all.",
        ),
    ] = "",
) -> None:
    pass


def place(here: Installation) -> Where:
    """Where its NATS is, now and later."""
    if here.settings.nats_url:
        return lambda: here.settings.nats_url

    def told() -> str | None:
        run = here.data.read_run()
        return None if run is None else str(run["nats_url"])

    return told


@asynccontextmanager
async def reached(here: Installation, name: str, *, serving: bool) -> AsyncIterator[Jet]:
    """A connection to the system, closed afterwards. serving: one whose commands are answered.

    Raises Unavailable (server.absent, services.absent, nats.*), Denied (nats.*), Misuse (nats.max_payload).
    """
    waiting = Waiting(here)
    async with AsyncExitStack() as stack:
        try:
            while True:
                try:
                    jet = await stack.enter_async_context(_tried(here, name, serving, waiting.try_s))
                    break
                except Unavailable as error:
                    await waiting.on(error)
        finally:
            waiting.over()
        yield jet


@asynccontextmanager
async def _tried(here: Installation, name: str, serving: bool, try_s: float) -> AsyncIterator[Jet]:
    find(here)
    async with connected(place(here), name, try_s) as jet:
        if serving:
            await answered(jet)
        yield jet


def find(here: Installation) -> str:
    """Where its NATS is now. Raises Unavailable (server.absent, server.starting)."""
    url = place(here)()
    if url is not None:
        return url
    where = output.home(here.data.path)
    if here.data.is_owned():
        raise Unavailable(f"the system for {where} is starting", code="server.starting")
    raise Unavailable(
        f"nothing is running for {where}",
        code="server.absent",
        hint="start it: lucid up (or set NATS_URL)",
    )


async def answered(jet: Jet) -> None:
    """Return when a command is answered. Raises Unavailable (services.absent)."""
    try:
        await call(jet, "ping", {}, PING_S)
    except Unavailable:
        raise Unavailable(
            "a NATS server answers, and none of our services",
            code="services.absent",
            hint="start them: lucid up, or lucid serve conductor and lucid serve worker",
        ) from None


class Waiting:
    """Waits between tries for as long as it is of use, and says so."""

    def __init__(self, here: Installation, clock: Callable[[], float] = time.monotonic) -> None:
        asked = _Asked.seconds if _Asked.seconds is not None else here.settings.wait_start_s
        self._asked = asked is not None
        self._clock, self._began_s = clock, clock()
        self._end_s = self._began_s + (WAIT_S if asked is None else asked)
        self._owned_s: float | None = None
        self.try_s = TRY_S if self._end_s <= self._began_s else FIRST_TRY_S
        """How long the next connection may take."""
        self._line = WaitingLine()

    async def on(self, error: Unavailable) -> None:
        """Return when it is time to try again. Raises the error when that is of no use any more."""
        now_s = self._clock()
        if error.code != "server.absent":
            self._owned_s = now_s
        if error.code not in PASSING or now_s >= self._end(error):
            self._line.clear()
            raise error
        if now_s - self._began_s >= TOLD_AFTER_S:
            self._line.show(error.message, self._end(error) - now_s)
        self.try_s = TRY_S
        await asyncio.sleep(AGAIN_S)

    def over(self) -> None:
        self._line.clear()

    def _end(self, error: Unavailable) -> float:
        if error.code != "server.absent" or self._asked:
            return self._end_s
        return min(self._end_s, (self._owned_s or -SUCCESSOR_S) + SUCCESSOR_S)


class WaitingLine:
    """One line on stderr: redrawn on a terminal, else said once for each reason."""

    def __init__(self) -> None:
        self._live = output.styled(sys.stderr)
        self._drawn, self._said = False, ""
        self._next_s = 0.0

    def show(self, why: str, left_s: float) -> None:
        if not self._live:
            if why != self._said:
                self._said = why
                output.note(f"lucid: waiting up to {left_s:.0f} s: {why}")
            return
        if time.monotonic() >= self._next_s:
            self._next_s = time.monotonic() + REDRAWN_S
            line = f"lucid: waiting {left_s:.0f} s more (Ctrl-C ends): {why}"
            sys.stderr.write(f"\r\x1b[2K{line[: output.COLUMNS - 1]}")
            sys.stderr.flush()
            self._drawn = True

    def clear(self) -> None:
        if self._drawn:
            sys.stderr.write("\r\x1b[2K")
            sys.stderr.flush()
            self._drawn = False
