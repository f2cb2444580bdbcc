"""Many short recordings at once on a system that runs, by hosts in this process: verbs would take minutes."""

import asyncio
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from handlers.format.fragment import FragmentSealer
from infra.jetstream import Jet
from infra.keys.host_identity import HostIdentity
from schemas import subjects
from schemas.events.session import SessionSettings
from schemas.format.chunk_header import Codec
from schemas.format.fragment import MAIN, PartSettings
from streams.control.client import call
from streams.host.session_start import start_session
from tests.support.program.installation import WAIT_S

START_US = 1_700_000_000_000_000


async def record_many(
    jet: Jet, hosts: Path, wanted: Sequence[tuple[str, str]], content: bytes
) -> list[bytes]:
    """Record `content` once for each (session, host) until all are sealed.

    hosts: where the hosts keep their evidence keys.
    """
    settings = SessionSettings(codec=Codec.NONE)

    async def record(session: str, host: str) -> None:
        grant = await start_session(jet, partial(HostIdentity, hosts), host, session, settings)
        sealer = FragmentSealer(grant.uid, MAIN, grant.sign_key, grant.intake_public, grant.genesis)
        for fragment in (
            sealer.part(PartSettings(encoder="opaque", reason="start"), START_US),
            sealer.data(content, START_US + 1),
            sealer.final((), START_US + 2),
        ):
            await jet.publish(subjects.recording(host, session), fragment, timeout_s=WAIT_S)

    async def sealed() -> bool:
        shown = [await call(jet, "show", {"session": session}, WAIT_S) for session, _ in wanted]
        return all(one["sealed"] for one in shown)

    await asyncio.gather(*(record(session, host) for session, host in wanted))
    async with asyncio.timeout(WAIT_S):
        while not await sealed():  # noqa: ASYNC110 - a host asks from outside
            await asyncio.sleep(0.2)
