"""A host that makes real fragments and then does with them what no publisher would.

It uses the product's own sealing: what it sends is rightly signed wherever a test does not say otherwise.
"""

import os
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from handlers.format.fragment import FragmentSealer, SealerState
from infra.jetstream import Jet, connect
from infra.keys.host_identity import HostIdentity
from schemas import subjects
from schemas.config.settings import Settings
from schemas.format.fragment import MAIN, PartSettings
from streams.host.publisher import Grant
from streams.host.session_start import start_session
from tests.support.program.installation import WAIT_S

CHUNK_BYTES = 256 << 10
BLOCK_BYTES = 64 << 10


class HostileHost:
    """One session of one host, started, with its first part sent."""

    def __init__(self, jet: Jet, grant: Grant) -> None:
        self.jet, self.grant = jet, grant
        self.subject = subjects.recording(grant.host, grant.session)
        self.sealer = FragmentSealer(grant.uid, MAIN, grant.sign_key, grant.intake_public, grant.genesis)
        self._time_us = time.time_ns() // 1000

    def fork(self, state: SealerState | None = None) -> FragmentSealer:
        """Another sealer of the same track, at another place: what a copied host would be."""
        grant = self.grant
        copy = FragmentSealer(grant.uid, MAIN, grant.sign_key, grant.intake_public, grant.genesis)
        copy.state = state or self.sealer.state
        return copy

    def now_us(self) -> int:
        self._time_us += 1
        return self._time_us

    async def send(
        self, fragment: bytes, subject: str = "", headers: Mapping[str, str] | None = None
    ) -> None:
        await self.jet.publish(subject or self.subject, fragment, headers, timeout_s=WAIT_S)

    async def data(self, count: int) -> None:
        """So many good fragments of a quarter of a chunk each."""
        for _ in range(count):
            await self.send(self.sealer.data(os.urandom(BLOCK_BYTES), self.now_us()))

    async def finish(self) -> None:
        await self.send(self.sealer.final((), self.now_us()))


@asynccontextmanager
async def hostile_host(url: str, hosts: Path, host: str, session: str) -> AsyncIterator[HostileHost]:
    """A session that is recording. hosts: where the host keeps its evidence key."""
    jet = await connect(url, name=f"hostile-{session}", timeout_s=WAIT_S)
    try:
        settings = Settings(chunk_bytes=CHUNK_BYTES).session()
        grant = await start_session(jet, partial(HostIdentity, hosts), host, session, settings)
        one = HostileHost(jet, grant)
        settings_of_part = PartSettings(encoder="opaque", reason="start")
        await one.send(one.sealer.part(settings_of_part, one.now_us()))
        yield one
    finally:
        await jet.close()
