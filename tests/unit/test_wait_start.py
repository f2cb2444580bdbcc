"""How long a verb waits for a system that starts."""

import io
import sys
from pathlib import Path

import pytest

from schemas.config.settings import Settings
from schemas.errors import Unavailable
from streams.cli import wait_start
from streams.cli.wait_start import SUCCESSOR_S, WAIT_S, Waiting, WaitingLine
from streams.roles.drivers import Installation
from tests.support.program.screen import shown_on


class Clock:
    """A time that passes with every wait."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()

    async def sleep(seconds: float) -> None:
        clock.now_s += seconds

    monkeypatch.setattr(wait_start.asyncio, "sleep", sleep)
    return clock


async def waited(clock: Clock, given: float | None, *codes: str) -> float:
    """How long it waits when each code is met for a second, and the last one for ever."""
    settings = Settings(data=Path("/nowhere"), wait_start_s=given)
    waiting, began_s = Waiting(Installation(settings), clock), clock()

    async def wait() -> None:
        while True:
            met = codes[min(int(clock() - began_s), len(codes) - 1)]
            await waiting.pause(Unavailable("not yet", code=met))

    with pytest.raises(Unavailable):
        await wait()
    return clock() - began_s


@pytest.mark.parametrize(
    ("given", "codes", "wanted_s"),
    [
        (None, ("server.absent",), 0),
        (None, ("server.starting",), WAIT_S),
        (None, ("nats.unreachable",), WAIT_S),
        (None, ("services.absent",), WAIT_S),
        (None, ("server.starting", "server.starting", "server.absent"), 2 + SUCCESSOR_S),
        (None, ("nats.foreign",), 0),
        (None, ("nats.no_jetstream",), 0),
        (0, ("server.starting",), 0),
        (0, ("nats.unreachable",), 0),
        (5, ("server.absent",), 5),
        (90, ("server.starting", "server.absent"), 90),
    ],
)
async def test_it_waits_for_what_may_come_and_for_nothing_else(
    clock: Clock, given: float | None, codes: tuple[str, ...], wanted_s: float
) -> None:
    """Breaks: a recorder gives up while the system restarts; or a person waits for what nobody started."""
    assert await waited(clock, given, *codes) == pytest.approx(wanted_s, abs=0.5)


def test_it_says_once_for_each_reason_that_it_waits(capsys: pytest.CaptureFixture[str]) -> None:
    """Breaks: a log is filled with one line five times a second."""
    line = WaitingLine()
    for why in ("starting", "starting", "no services", "no services"):
        line.show(why, 59.6)
    line.clear()
    assert capsys.readouterr().err.splitlines() == [
        "lucid: waiting up to 60 s: starting",
        "lucid: waiting up to 60 s: no services",
    ]


def test_on_a_terminal_one_line_is_drawn_and_taken_away_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks: what a verb says stands behind the remains of a line that waits."""

    class Terminal(io.TextIOWrapper):
        def isatty(self) -> bool:
            return True

    drawn = io.BytesIO()
    terminal = Terminal(drawn, encoding="utf-8", newline="")
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    line = WaitingLine()
    line.show("a reason that is long " * 9, 42)
    line.show("a second one comes too early to be drawn", 42)
    line.clear()
    written = drawn.getvalue().decode()
    assert shown_on(written) == []
    before_clear, _, _ = written.rpartition("\n")
    (line,) = shown_on(before_clear)
    assert line.startswith("lucid: waiting 42 s more (Ctrl-C ends): a reason")
    assert "\n" not in before_clear
    assert len(line) <= 80
