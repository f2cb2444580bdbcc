"""Loads the Merkle tree of one session: of a sealed one from its manifest, of a live one from its events.

1. A sealed tree never changes: its root is the one in the signed manifest, and is checked against it here.
2. A live tree holds the chunks from index 0 to the first that is not proven yet. It grows at its right end,
   unless a chunk is driven again with other bytes. Nobody has signed it.
3. Entries of sealed trees are kept for the next request, at most ENTRIES_KEPT of all sessions together.
"""

import asyncio
from collections import OrderedDict
from dataclasses import dataclass
from functools import cached_property

from handlers.format.merkle_tree import (
    ConsistencyProof,
    InclusionProof,
    consistency_proof,
    inclusion_proof,
    leaf,
    root,
)
from handlers.lifecycle.session import Session
from schemas.errors import EvidenceFalse, NotFound, RefusedByState
from schemas.format.index import Entry
from streams.event_store.proven_chunks import ProvenSessions
from streams.event_store.session_log import SessionLog
from streams.evidence.evidence_store import EvidenceStore

ENTRIES_KEPT = 100_000


@dataclass(frozen=True)
class SessionTree:
    """The packed entries of a session's chunks by index, and the tree over their leaves."""

    session: Session
    entries: tuple[bytes, ...]
    is_sealed: bool

    @property
    def size(self) -> int:
        return len(self.entries)

    @cached_property
    def leaves(self) -> list[bytes]:
        return [leaf(entry) for entry in self.entries]

    @cached_property
    def root(self) -> bytes:
        return root(self.leaves)

    def entry(self, index: int) -> Entry:
        """Raises NotFound (chunk.absent)."""
        self._within(index)
        return Entry.parse(self.entries[index])

    def inclusion(self, index: int, size: int | None = None) -> InclusionProof:
        """The proof of one leaf in the tree of the first `size` leaves. Blocks.

        Raises NotFound (chunk.absent), RefusedByState (merkle.size).
        """
        self._within(index)
        leaves = self._first(self.size if size is None else size)
        if index >= len(leaves):
            raise self._refused(f"leaf {index} is not in the tree of {len(leaves)} leaves")
        return inclusion_proof(leaves, index)

    def consistency(self, old_size: int, size: int | None = None) -> ConsistencyProof:
        """The proof that the tree of `size` leaves begins with that of `old_size`. Blocks.

        Raises RefusedByState (merkle.size).
        """
        leaves = self._first(self.size if size is None else size)
        if old_size > len(leaves):
            raise self._refused(f"a tree of {len(leaves)} leaves holds no earlier tree of {old_size}")
        return consistency_proof(leaves, old_size)

    def root_of(self, size: int) -> bytes:
        """The root of the tree of the first `size` leaves. Blocks. Raises RefusedByState (merkle.size)."""
        return self.root if size == self.size else root(self._first(size))

    def _first(self, size: int) -> list[bytes]:
        if size > self.size:
            raise self._refused(f"the tree has no {size} leaves")
        return self.leaves if size == self.size else self.leaves[:size]

    def _within(self, index: int) -> None:
        if index >= self.size:
            raise NotFound(
                f"the tree of session {self.session.id} has {self.size} leaves, none at {index}",
                code="chunk.absent",
            )

    def _refused(self, why: str) -> RefusedByState:
        return RefusedByState(
            f"session {self.session.id}: {why}; its tree has {self.size} leaves now", code="merkle.size"
        )


class SessionTrees:
    """The trees of the sessions of one installation. Used from one event loop."""

    def __init__(self, log: SessionLog, proven: ProvenSessions, evidence: EvidenceStore) -> None:
        self._log, self._proven, self._evidence = log, proven, evidence
        self._sealed: OrderedDict[bytes, SessionTree] = OrderedDict()
        """By digest of the manifest."""

    async def of(self, session_id: str) -> SessionTree:
        """The session's tree now.

        Raises NotFound (session.absent), RefusedByState (evidence.destroyed), EvidenceFalse (manifest.*).
        """
        session = await existing(self._log, session_id)
        if not session.sealed:
            async with self._proven.of(session) as chunks:
                return SessionTree(session, tuple(chunks.prefix()), is_sealed=False)
        known = self._sealed.get(session.seals[-1].manifest)
        if known is None:
            known = await asyncio.to_thread(self._of_manifest, session)
            self._sealed[session.seals[-1].manifest] = known
            self._forget()
        return SessionTree(session, known.entries, is_sealed=True) if known.session != session else known

    def _of_manifest(self, session: Session) -> SessionTree:
        manifest = self._evidence.manifest(session)
        entries = tuple(item.entry.pack() for item in (*manifest.chunks, *manifest.index))
        tree = SessionTree(session, entries, is_sealed=True)
        if (tree.size, tree.root) != (manifest.merkle.tree_size, manifest.merkle.root):
            raise EvidenceFalse(
                f"the entries in the manifest of {session.id} do not give its root", code="manifest.root"
            )
        return tree

    def _forget(self) -> None:
        held = sum(tree.size for tree in self._sealed.values())
        while held > ENTRIES_KEPT and len(self._sealed) > 1:
            _, oldest = self._sealed.popitem(last=False)
            held -= oldest.size


async def existing(log: SessionLog, session_id: str) -> Session:
    """The session, which must not be destroyed. Raises NotFound, RefusedByState (evidence.destroyed)."""
    session = await log.existing(session_id)
    if session.destroy is not None or session.shredded is not None:
        raise RefusedByState(
            f"session {session_id} is {session.state}: its evidence is destroyed", code="evidence.destroyed"
        )
    return session
