"""Owns destroying a session's evidence for good, and saying so under signature.

    fence → wraps erased → fragments, events, dead letters, chunks, quarantine emptied → tombstone

1. The fence comes first: nothing that follows can be undone by a late writer making a key.
2. With the wraps gone, whatever a late writer still leaves behind can be opened by nobody; every place is
   emptied until a whole round finds nothing more.
3. Every step may be repeated after a crash; the tombstone derives from the order to destroy, and from who
   signs what bears that date, so it is the same each time.
4. The log, its history and the manifests stay: they hold digests and names, no picture.
"""

import asyncio
import logging
from dataclasses import dataclass

from handlers.session import Session
from schemas import dsse, subjects
from schemas.digest import ZERO, h
from schemas.errors import Unavailable
from schemas.lifecycle_events import Created, DestroyOrdered
from schemas.ports import Blobs, Eraser, Signers
from schemas.trust import Place, Tombstone
from streams.keystore import KeyStore

ROUND_S = 1.0
"""Between two rounds: longer than a chunk that was in work needs to land."""
ROUNDS = 30
NO_KEY = bytes(16)

log = logging.getLogger("lucid.shredding")


def tombstone_name(uid: bytes) -> str:
    """Where the tombstone lies among the manifests."""
    return f"{uid.hex()}.tombstone.dsse.json"


@dataclass(frozen=True, slots=True)
class Shredder:
    """What destroying works with."""

    jet: Eraser
    keys: KeyStore
    chunks: Blobs
    manifests: Blobs
    quarantine: Blobs
    signers: Signers
    round_s: float = ROUND_S

    async def shred(self, session: Session) -> bytes:
        """Destroy, and return H of the tombstone's envelope. Safe to repeat.

        Raises Retryable; then nothing is half done that the next call would not finish.
        """
        created, order = session.created, session.destroy
        assert created is not None
        assert order is not None
        await self.keys.fence(created.uid)
        await self.keys.erase(created.uid)
        for number in range(ROUNDS):
            if number:
                await asyncio.sleep(self.round_s)
            emptied = await self._empty(created)
            log.info("emptied session=%s round=%d items=%d", session.id, number, sum(emptied.values()))
            # The first round may race with jobs in work; one that finds nothing after a pause is the last.
            if number and not any(emptied.values()):
                return await asyncio.to_thread(self._bury, session, created, order, sorted(emptied))
        raise Unavailable(f"{session.id} is being written while it is destroyed", code="destroy.busy")

    async def _empty(self, created: Created) -> dict[str, int]:
        """Empty every place once; how much each held."""
        name, uid = created.session, created.uid.hex()
        return {
            "fragments": await self.jet.purge(subjects.RECORDINGS, subjects.recording(created.host, name)),
            "events": await self.jet.purge(subjects.CHUNKS, subjects.chunk("*", name)),
            "dead": await self.jet.purge(subjects.DEAD, subjects.dead("*", name)),
            "chunks": await asyncio.to_thread(self.chunks.remove, f"{uid}/"),
            "quarantine": await asyncio.to_thread(self.quarantine.remove, f"{uid}/"),
        }

    def _bury(self, session: Session, created: Created, order: DestroyOrdered, emptied: list[str]) -> bytes:
        signer = self.signers.at(order.at_us)
        places = [Place(place="keys", outcome="erased")]
        places += [Place(place=place, outcome="empty") for place in emptied]
        said = Tombstone(
            uid=created.uid,
            dek_id=session.dek_id or NO_KEY,
            manifest=session.seals[-1].manifest if session.seals else ZERO,
            who=order.who,
            approver=order.approver,
            reason=order.reason,
            at_us=max(order.at_us, signer.from_us),
            places=tuple(places),
            backups_until_us=order.backups_until_us,
        )
        envelope = dsse.build(said.build(), dsse.TOMBSTONE, signer.sign, signer.public)
        name = tombstone_name(created.uid)
        self.manifests.put(name, envelope)
        found = self.manifests.read(name)
        if found is None:
            raise Unavailable(f"tombstone {name} cannot be read back", code="destroy.read_back", place=name)
        # One that is there already was made by an earlier try, perhaps by an earlier signer: it stands.
        return h(found)
