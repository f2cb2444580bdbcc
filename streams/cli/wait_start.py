"""Finds the running system for a verb, connects to it, and waits for a system that is starting.

1. NATS_URL wins; else `run.json` of the data directory gives the address. It is read before every try, so a
   verb that runs on follows a system that returns at another address.
2. A verb waits for a system or for services that start: WAIT_S, or as long as `--wait-start` (WAIT_START)
   says. One line on stderr reports the wait.
3. If no process owns the data directory, nothing is starting. The verb then fails at once, unless it was told
   how long to wait. After an owner has gone, it waits SUCCESSOR_S for the next one.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Annotated, Any

import typer

from schemas.config import values
from schemas.errors import Denied, Unavailable
from schemas.ports import Jet
from streams.cli import output
from streams.cli.live import LiveLines
from streams.control.client import call
from streams.roles.drivers import Installation, Where, connected, traced

WAIT_S = 60.0
SUCCESSOR_S = 10.0
RETRY_S, PING_S = 0.2, 3.0
FIRST_TRY_S, TRY_S = 1.0, 5.0
"""How long one connection may take. The first takes less, so that the reason of a wait is shown soon."""
ASKS = "lucid-cli"
"""The name of a verb that only asks: it would wait longer for its own traces than for its answer."""
QUIET_S = 0.5
"""A shorter wait is not reported."""
REDRAWN_S = 1.0
LONGEST_S = 86_400.0
NOT_RUNNING = ("server.absent", "server.starting")
TRANSIENT = frozenset(
    {
        *(*NOT_RUNNING, "services.absent"),
        *("nats.unreachable", "nats.hung_up", "nats.silent", "nats.refused", "nats.disconnected"),
        *("nats.timeout", "nats.nobody"),
    }
)
"""Codes of errors that the end of a start removes."""


class _Option:
    """The value of `--wait-start` in this process; None: not given."""

    seconds: float | None = None


def _parse(given: str) -> str:
    try:
        _Option.seconds = values.duration(0, LONGEST_S).parse(given) if given else None
    except ValueError:
        raise typer.BadParameter(f"{given[:40]!r} is no time such as 0, 30, 90s or 5m") from None
    return given


def add_wait_start(command: Any) -> None:
    """Give a command, or each command of a group, the option `--wait-start`."""
    for one in getattr(command, "commands", {}).values():
        add_wait_start(one)
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
            callback=_parse,
            expose_value=False,
            help="Wait so long for a system that starts; 0: not at all.",
        ),
    ] = "",
) -> None:
    pass


@asynccontextmanager
async def connection(here: Installation, name: str, *, serving: bool) -> AsyncIterator[Jet]:
    """A connection to the system, closed afterwards. serving: commands are answered.

    Raises Unavailable (server.absent, services.absent, nats.*), Denied (nats.*), Misuse (nats.max_payload).
    """
    waiting = Waiting(here)
    async with AsyncExitStack() as stack:
        try:
            while True:
                try:
                    jet = await stack.enter_async_context(_connected_once(here, name, serving, waiting.try_s))
                    break
                except Unavailable as error:
                    await waiting.pause(error)
        finally:
            waiting.end()
        if name != ASKS:
            await stack.enter_async_context(traced(jet, name, here.data))
        yield jet


@asynccontextmanager
async def _connected_once(here: Installation, name: str, serving: bool, try_s: float) -> AsyncIterator[Jet]:
    server_url(here)
    async with connected(_address(here), name, try_s, here.credential) as jet:
        if serving:
            await require_services(jet)
        yield jet


def _address(here: Installation) -> Where:
    """A function that gives the address of NATS at any time; None: nothing runs."""
    if here.settings.nats_url:
        return lambda: here.settings.nats_url

    def read() -> str | None:
        run = here.data.read_run()
        return None if run is None else str(run["nats_url"])

    return read


def server_url(here: Installation) -> str:
    """The address of NATS now. Raises Unavailable (server.absent, server.starting)."""
    url = _address(here)()
    if url is not None:
        return url
    where = output.short_path(here.data.path)
    if here.data.is_owned():
        raise Unavailable(f"the system for {where} is starting", code="server.starting")
    raise Unavailable(
        f"nothing is running for {where}",
        code="server.absent",
        hint="start it: lucid up (or set NATS_URL)",
    )


def running_url(here: Installation) -> str | None:
    """The address of NATS now; None: nothing runs."""
    try:
        return server_url(here)
    except Unavailable as error:
        if error.code not in NOT_RUNNING:
            raise
        return None


async def require_services(jet: Jet) -> None:
    """Return when a command is answered, or refused. Raises Unavailable (services.absent)."""
    try:
        await call(jet, "ping", {}, PING_S)
    except Denied:  # the services are there; the verb's own command says that the token does not do
        return
    except Unavailable:
        raise Unavailable(
            "a NATS server answers, and none of our services",
            code="services.absent",
            hint="start them: lucid serve conductor and lucid serve worker, or all: lucid up",
        ) from None


class Waiting:
    """The wait between two tries, and its end when another try cannot help."""

    def __init__(self, here: Installation, clock: Callable[[], float] = time.monotonic) -> None:
        asked = _Option.seconds if _Option.seconds is not None else here.settings.wait_start_s
        self._asked = asked is not None
        self._clock, self._began_s = clock, clock()
        self._end_s = self._began_s + (WAIT_S if asked is None else asked)
        self._owned_s: float | None = None
        self.try_s = TRY_S if self._end_s <= self._began_s else FIRST_TRY_S
        """How long the next connection may take."""
        self._line = WaitingLine()

    async def pause(self, error: Unavailable) -> None:
        """Return when it is time to try again. Raises the error when another try cannot help."""
        now_s = self._clock()
        if error.code != "server.absent":
            self._owned_s = now_s
        if error.code not in TRANSIENT or now_s >= self._last_s(error):
            self._line.clear()
            raise error
        if now_s - self._began_s >= QUIET_S:
            self._line.show(error.message, self._last_s(error) - now_s)
        self.try_s = TRY_S
        await asyncio.sleep(RETRY_S)

    def end(self) -> None:
        self._line.clear()

    def _last_s(self, error: Unavailable) -> float:
        if error.code != "server.absent" or self._asked:
            return self._end_s
        return min(self._end_s, (self._owned_s or -SUCCESSOR_S) + SUCCESSOR_S)


class WaitingLine:
    """One line on stderr: redrawn on a terminal, else written once for each reason."""

    def __init__(self) -> None:
        self._live = LiveLines(REDRAWN_S)
        self._reason = ""
        self.clear = self._live.clear

    def show(self, reason: str, left_s: float) -> None:
        self._live.draw([f"lucid: waiting {left_s:.0f} s more (Ctrl-C ends): {reason}"])
        if not self._live.drawn and reason != self._reason:
            self._reason = reason
            output.note(f"lucid: waiting up to {left_s:.0f} s: {reason}")
