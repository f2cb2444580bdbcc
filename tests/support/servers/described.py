"""Sessions with personal fields, written straight into the event log, and read models made of them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from handlers.crypto.blind_index import BlindIndex
from handlers.crypto.details import seal_details
from handlers.lifecycle.session import Session
from infra.jetstream import Jet
from infra.keys.master import Keyring
from infra.keys.session_keys import DiskKeyFiles
from schemas.events import commands
from schemas.events.details import Details
from schemas.format.fragment import session_uid
from schemas.ports.read_models import Views
from schemas.subjects import UPLOAD_HOST
from streams.bench.finished import INTAKE, FinishedHost
from streams.event_store.session_log import SessionLog
from streams.keys.keystore import KeyStore
from streams.projections.projector import Documents, Projector
from streams.projections.rebuild import Progress, rebuild
from streams.projections.session_list import SessionList
from tests.support.machine.waiting import PATIENCE_S

START_US = 1_700_000_000_000_000
SECOND_US = 1_000_000
MANIFEST = bytes(range(32))


class Described:
    """An event log whose sessions have personal fields, and their keys."""

    def __init__(self, jet: Jet, folder: Path) -> None:
        self.jet = jet
        keyring = Keyring(folder / "keys")
        keyring.begin()
        self.keys = KeyStore(DiskKeyFiles(folder / "keys" / "sessions"), keyring)
        self.index = BlindIndex(bytes(range(32)))
        self.documents = Documents(self.keys, self.index)
        self.log = SessionLog(jet)
        self._host = FinishedHost(UPLOAD_HOST)
        self._at_us = START_US

    async def open(self, name: str, details: Details | None, who: str = "ada") -> Session:
        """A new session, with its key."""
        self._at_us += SECOND_US
        asked = self._host.create(name, self._at_us).model_dump() | {"who": who}
        uid = session_uid(self._host.public, asked["counter"])
        keys = await self.keys.make(uid)
        sealed = seal_details(keys.dek, uid, 1, details) if details else None
        return await self.log.execute(commands.Open(**asked, dek_id=keys.dek_id, details=sealed))

    async def order(self, kind: type[commands.Command], name: str, **more: Any) -> Session:
        """One command, a second after the one before."""
        self._at_us += SECOND_US
        said = {
            "session": name,
            "at_us": self._at_us,
            "who": "tester",
            "cause": f"{kind.__name__}-{self._at_us}",
        }
        return await self.log.execute(kind.model_validate({**said, **more}))

    async def change(self, name: str, details: Details) -> Session:
        """New personal fields."""
        session = await self.log.load(name)
        revision = session.revision + 1
        keys = await self.keys.make(session.uid)
        sealed = seal_details(keys.dek, session.uid, revision, details)
        return await self.order(
            commands.ChangeDetails, name, revision=revision, dek_id=keys.dek_id, details=sealed
        )

    async def start(self, name: str) -> None:
        session = await self.order(commands.Start, name)
        await self.order(commands.StartComplete, name, dek_id=session.key_id, intake=INTAKE)

    async def seal(self, name: str, chunks: int) -> None:
        """End and seal a started session."""
        await self.order(commands.Stop, name, reason="ended")
        begun = {"sealed_us": self._at_us, "signer": MANIFEST, "n": chunks, "stored": 9}
        await self.order(commands.BeginSeal, name, **begun)
        sums = {"chunks": chunks + 1, "plain": chunks << 20, "sealed": chunks << 19}
        await self.order(commands.CompleteSeal, name, seal_no=1, manifest=MANIFEST, root=MANIFEST, **sums)
        await self.order(commands.StopComplete, name, reason="sealed")

    async def destroy(self, name: str) -> None:
        """As the conductor does it: the order, then the key, then the tombstone."""
        session = await self.order(commands.Cleanup, name, reason="operator")
        await self.keys.erase(session.uid)
        await self.order(commands.RecordShredding, name, tombstone=MANIFEST)
        await self.order(commands.CleanupComplete, name)

    def listed(self, views: Views) -> SessionList:
        return SessionList(self.jet, views, self.keys, self.index)

    @asynccontextmanager
    async def projected(self, views: Views) -> AsyncIterator[SessionList]:
        """Lists from read models that a projector keeps up to date; they know the whole log at first."""
        projector = Projector(self.jet, views, self.documents, _at_once)
        running = asyncio.create_task(projector.run())
        try:
            listed = self.listed(views)
            async with asyncio.timeout(PATIENCE_S):
                while (await listed.page({"limit": 1}))["behind"]:  # noqa: ASYNC110  # nothing tells
                    await asyncio.sleep(0.02)
            yield listed
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    async def rebuild(self, views: Views) -> Progress:
        return await rebuild(self.jet, views, self.documents, lambda _: None)


async def _at_once() -> None:
    """Commands can be answered."""
