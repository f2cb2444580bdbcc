"""Destroys a session's evidence for good, and writes a signed tombstone.

    erasure in the log → key file erased → fragments up to here, events, dead letters, chunks, quarantine
    emptied → tombstone

1. The key is erased first. From then on any rest, in any place or copy, is ciphertext that nobody opens.
2. Fragments are purged up to the sequence that their stream had reached when the key was gone. Later
   fragments belong to nobody and delay nothing: retention/sealed_source.py purges them.
3. Every place is emptied twice, with a pause between: a job that was under way finds no key by then. It
   removes the files that it had written.
4. Every step may be repeated after a crash. The tombstone derives from the order to destroy, and from the
   signer of that date, so it is the same each time; an existing one is kept.
5. The pause holds no slot: of many sessions destroyed at once, all keys go first, and all pause together.
6. The log, its history and the manifests stay: they hold digests and names, no picture.
"""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

from handlers.lifecycle.session import Session
from schemas import subjects
from schemas.config.logs import logger
from schemas.errors import Unavailable
from schemas.events.session import Created, DestroyOrdered
from schemas.format import dsse
from schemas.format.digest import ZERO, h
from schemas.format.file_names import tombstone_name
from schemas.format.trust import Place, Tombstone
from schemas.ports import Erasure, Signers
from streams.event_store.recordings import Recordings
from streams.evidence.evidence_store import EvidenceStore
from streams.keys.copies import copies_end_us
from streams.keys.folder import RequireKeys, order_erasure
from streams.keys.keystore import KeyStore

PAUSE_S = 1.0
"""Between the two times that places are emptied: longer than most jobs."""
NO_KEY = bytes(16)

Turn = Callable[[], AbstractAsyncContextManager[None]]

log = logger("lucid.shredding")


@dataclass(frozen=True, slots=True)
class Shredder:
    """Destroys sessions."""

    recordings: Recordings
    keys: KeyStore
    evidence: EvidenceStore
    signers: Signers
    require_keys: RequireKeys

    async def shred(self, session: Session, turn: Turn) -> bytes:
        """Destroy, and return H of the tombstone's envelope. Safe to repeat.

        turn: is taken for the work before the pause, and again for the work after it.
        Raises Retryable: the next call completes it.
        """
        created, order = session.created, session.destroy
        assert created is not None
        assert order is not None
        async with turn():
            await self.require_keys()  # a keys/ that is missing or foreign erases nothing
            # In the log first: an older keys/ that replaces this one erases the key before it serves.
            await order_erasure(self.recordings.jet, created.uid)
            erasure = await self.keys.erase(created.uid, was_made=bool(session.key_id))
            until_us = max(order.backups_until_us, await copies_end_us(self.recordings.jet, created.session))
            order = order.model_copy(update={"backups_until_us": until_us})
            up_to = (await self.recordings.info(self.recordings.stream_of(session.id))).last_seq
            await self._empty(created, up_to)
        await asyncio.sleep(PAUSE_S)
        async with turn():
            emptied = await self._empty(created, up_to)
            return await asyncio.to_thread(
                self._put_tombstone, session, created, order, erasure, sorted(emptied)
            )

    async def _empty(self, created: Created, up_to: int) -> dict[str, int]:
        """Empty every place once. Returns the number of items that each held."""
        name, uid, jet = created.session, created.uid.hex(), self.recordings.jet
        emptied = {
            "fragments": await self.recordings.purge(subjects.recording_by_anyone(name), up_to),
            "events": await jet.purge(subjects.CHUNKS, subjects.chunk("*", name)),
            "dead": await jet.purge(subjects.DEAD, subjects.dead("*", name)),
            "chunks": await asyncio.to_thread(self.evidence.chunks.remove, f"{uid}/"),
            "quarantine": await asyncio.to_thread(self.evidence.quarantine.remove, f"{uid}/"),
        }
        log.info("emptied", session=name, items=sum(emptied.values()))
        return emptied

    def _put_tombstone(
        self, session: Session, created: Created, order: DestroyOrdered, erasure: Erasure, emptied: list[str]
    ) -> bytes:
        signer = self.signers.at(order.at_us)
        places = [Place(place="keys", outcome=erasure)]
        places += [Place(place=place, outcome="emptied") for place in emptied]
        tombstone = Tombstone(
            uid=created.uid,
            dek_id=session.key_id or NO_KEY,
            manifest=session.seals[-1].manifest if session.seals else ZERO,
            who=order.who,
            approver=order.approver,
            reason=order.reason,
            at_us=max(order.at_us, signer.from_us),
            places=tuple(places),
            backups_until_us=order.backups_until_us,
        )
        envelope = dsse.build(tombstone.build(), dsse.TOMBSTONE, signer.sign, signer.public)
        name = tombstone_name(created.uid)
        self.evidence.manifests.put(name, envelope)
        found = self.evidence.manifests.read(name)
        if found is None:
            raise Unavailable(f"tombstone {name} cannot be read back", code="destroy.read_back", place=name)
        # An existing one was made by an earlier try, perhaps by an earlier signer: it is kept.
        return h(found)
