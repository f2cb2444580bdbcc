"""The cost of an agent that records one display of 1280x720: CPU, memory and bytes, by profile and by work.

1. The agent is the real one, in this process, and records into a system of its own. The display is Xvfb.
2. Idle: a terminal and a pointer that rest. Active: five lines of text a second, and the pointer moves.
3. CPU is of the agent and its encoder, without the X server and without the platform.
"""

import asyncio
import contextlib
import json
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil

from infra.capture.x11_display import Display, watched_display
from infra.capture.x11_source import X11Source
from infra.jetstream import connect
from schemas.config.profiles import PROFILES
from schemas.config.settings import Settings
from schemas.ports.processes import Picture
from schemas.ports.rdp import DisplaySource, RdpSession
from streams.host.agent import Agent, Plan
from streams.roles.drivers import Installation as Drivers
from tests.support.machine.x_display import COOKIE, Person, xvfb
from tests.support.program.installation import Installation, running

WARM_S = 3.0
SESSION = RdpSession("1.1", 0, "somebody", 0)
TERMINAL = ("-geometry", "110x36+10+10", "-fa", "DejaVu Sans Mono", "-fs", "11")
TEXT = "/usr/share/common-licenses/GPL-3"
SCROLLS = f"while :; do while read line; do echo $line; sleep 0.2; done < {TEXT}; done"


class OneDisplay:
    """An RDP host with one session. The port RdpHost."""

    def __init__(self, display: Display) -> None:
        self._display = display

    def sessions(self) -> list[RdpSession]:
        return [SESSION]

    async def size(self, session: RdpSession) -> tuple[int, int]:
        async with watched_display(self._display, asyncio.Event()) as display:
            return display.size

    @asynccontextmanager
    async def source(self, session: RdpSession, picture: Picture) -> AsyncIterator[DisplaySource]:
        yield X11Source(self._display, picture)

    async def tell(self, session: RdpSession, text: str, seconds: float, shown: Callable[[], None]) -> None:
        raise AssertionError("there is no notice")

    async def noticed(self) -> None:
        await asyncio.Event().wait()


async def measure(system: Installation, display: Display, profile: str, seconds: float) -> dict[str, Any]:
    """The cost of one recording while the display is at work."""
    jet = await connect(system.nats_url, name="agent")
    drivers = Drivers(Settings(data=system.data))
    jet.credential = drivers.credential
    stop = asyncio.Event()
    agent = Agent(
        jet, drivers.identity, OneDisplay(display), Plan("rdp-1", Settings().session(), PROFILES[profile])
    )
    task = asyncio.create_task(agent.run(stop))
    own = psutil.Process()
    try:
        await asyncio.sleep(WARM_S)
        encoders = [one for one in own.children() if "ffmpeg" in one.name()]
        processes = [own, *encoders]
        plain, spent = _plain(agent), [_cpu_s(one) for one in processes]
        await asyncio.sleep(seconds)
        spent = [_cpu_s(one) - before for one, before in zip(processes, spent, strict=True)]
        return {
            "profile": profile,
            "fps": PROFILES[profile].frame_rate,
            "agent_cpu_percent": round(100 * spent[0] / seconds, 1),
            "encoder_cpu_percent": round(100 * sum(spent[1:]) / seconds, 1),
            "agent_mb": round(own.memory_info().rss / 1e6),
            "encoder_mb": round(sum(one.memory_info().rss for one in encoders) / 1e6),
            "mb_an_hour": round((_plain(agent) - plain) * 3600 / seconds / 1e6, 1),
        }
    finally:
        stop.set()
        await task
        await jet.close()


def _plain(agent: Agent) -> int:
    (followed,) = agent.followed
    assert followed.recording is not None
    return followed.recording.progress.plain


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


async def _move(person: Person) -> None:
    """Move the pointer ten times a second."""
    at = 0
    while True:
        at = (at + 37) % 600
        await asyncio.to_thread(person.run, "xdotool", "mousemove", str(200 + at), str(100 + at // 2))
        await asyncio.sleep(0.1)


async def main(seconds: float, profiles: list[str]) -> None:
    with (
        tempfile.TemporaryDirectory() as path,
        xvfb(Path(path), screen="1280x720x24") as number,
        running(Path(path) / "data") as system,
    ):
        display, person = Display(number, COOKIE), Person(Path(path), number)
        for work in ("idle", "active"):
            command = ["-e", "sh", "-c", SCROLLS] if work == "active" else []
            with person.running("xterm", *TERMINAL, *command):
                moving = asyncio.create_task(_move(person)) if work == "active" else None
                for profile in profiles:
                    found = await measure(system, display, profile, seconds)
                    print(json.dumps({"work": work, **found}), flush=True)
                if moving is not None:
                    moving.cancel()
                    with contextlib.suppress(asyncio.CancelledError):
                        await moving


if __name__ == "__main__":
    length = float(sys.argv[1]) if len(sys.argv) > 1 else 20.0
    asyncio.run(main(length, sys.argv[2:] or list(PROFILES)))
