"""The verb `lucid agent`: records the RDP sessions of this host.

1. A platform that is away or starting is no error: the agent waits for it.
2. The first signal ends all recordings in order.
"""

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Annotated

import typer

from schemas import subjects
from schemas.config.logs import logger
from schemas.config.profiles import PROFILES, ProfileName
from schemas.errors import Misuse, Unavailable
from schemas.ports import Jet
from streams.cli import attach
from streams.cli.groups import group
from streams.cli.wait_start import TRANSIENT, connection
from streams.host.agent import Agent, Plan
from streams.roles.drivers import (
    Installation,
    configure_logs,
    fits_notice,
    own_host,
    prepare_memory,
    rdp_host,
)

NOTICES = Path("/run/lucid/notices")
NOTICE_BYTES = 2000
AGAIN_S = 5.0

agent = group()
log = logger("lucid.agent")


@agent.callback()
def _group() -> None:
    """The agent of an RDP host."""


@agent.command(short_help="Record every RDP session of this host.")
def run(
    host: Annotated[str, typer.Option(help="The recording host; default: this machine's name.")] = "",
    profile: Annotated[
        ProfileName, typer.Option(help="archive: least bytes; smooth: most pictures.")
    ] = "standard",
    notice: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A text that is shown to the person at each login.")
    ] = None,
    notices: Annotated[
        Path, typer.Option(help="The named pipe into which the hook of PAM writes.")
    ] = NOTICES,
) -> None:
    """Record every RDP session of this host, from its login to its end. Ctrl-C ends all in order."""
    here = Installation.here()
    name = subjects.host_id(host or own_host())
    here.process = f"agent@{name}"
    configure_logs(here.settings, here.process)
    text = _text(notice) if notice is not None else ""
    plan = Plan(name, here.settings.session(), PROFILES[profile], notice=text)
    stop = asyncio.Event()
    waiting: list[asyncio.Task[None]] = []
    """The task that waits for the platform, until it has found it."""

    def asked() -> None:
        stop.set()
        for task in waiting:
            task.cancel()

    async def work() -> None:
        prepare_memory()
        async with rdp_host(notices) as rdp, AsyncExitStack() as stack:
            task = asyncio.current_task()
            assert task is not None
            waiting.append(task)
            jet = await _platform(here, stack)
            waiting.clear()
            await stack.enter_async_context(here.measured(jet))
            log.info("agent_started", host=name, profile=profile)
            recorder = Agent(jet, here.identity, rdp, plan)
            text = "RDP sessions of this host: recorded with and without a client, and not recorded."
            here.meter.rows("lucid_rdp_sessions", text, ("state",), recorder.counts)
            await recorder.run(stop)

    attach.run(work(), asked)


def _text(file: Path) -> str:
    """The text of the notice. Raises Misuse (agent.notice)."""
    try:
        text = file.read_bytes()[: NOTICE_BYTES + 1].decode()
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or "it is no text in UTF-8"
        raise Misuse(f"the notice {file} cannot be read: {why}", code="agent.notice") from None
    if not text.strip() or len(text) > NOTICE_BYTES:
        raise Misuse(f"the notice {file} is empty or has more than {NOTICE_BYTES} bytes", code="agent.notice")
    if not fits_notice(text):
        raise Misuse(
            f"the notice {file} cannot be shown whole: 30 lines of 76 letters of Latin-1 can",
            code="agent.notice",
        )
    return text


async def _platform(here: Installation, stack: AsyncExitStack) -> Jet:
    """Wait for the platform. Raises Denied, Misuse (both nats.*): waiting does not help."""
    while True:
        try:
            return await stack.enter_async_context(connection(here, "lucid-host", serving=True))
        except Unavailable as error:
            if error.code not in TRANSIENT:
                raise
            log.warning("platform_away", error=error)
            await asyncio.sleep(AGAIN_S)
