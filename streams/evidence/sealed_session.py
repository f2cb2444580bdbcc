"""Loads a sealed session of this installation: its evidence and its keys.

The event log is the history, the store has the files, the key files have the keys: nothing is copied here.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from handlers.crypto.keys import SessionKeys
from handlers.lifecycle.session import Session
from handlers.lifecycle.view import refusal_hint
from schemas.errors import RefusedByState
from schemas.format.file_names import tombstone_name
from schemas.format.trust import Keys
from schemas.ports import DataDir, Jet, KeyFiles, MasterKeys
from schemas.ports.evidence import Evidence, Listing
from schemas.subjects import session_id
from streams.event_store.session_log import SessionLog
from streams.keys.held_keys import HeldKeys
from streams.keys.keystore import KeyStore


@dataclass(frozen=True, slots=True)
class SealedSession:
    """A sealed session of this installation."""

    session: Session
    evidence: Evidence


async def load_sealed(jet: Jet, data: DataDir, name: str) -> SealedSession:
    """The session of this name, which must be sealed and not destroyed.

    Raises NotFound (session.absent), RefusedByState (evidence.unsealed, evidence.destroyed).
    """
    log = SessionLog(jet)
    session = await log.existing(session_id(name))
    if session.shredded is not None:
        stone = data.manifests / tombstone_name(session.uid)
        raise RefusedByState(
            f"session {name} was destroyed: its key is gone",
            code="evidence.destroyed",
            hint=f"its tombstone says when and why: lucid verify {stone} --trust FILE",
            place=str(stone),
        )
    require_seal(session)
    return SealedSession(session, data.session_evidence(session.uid, await log.history(name)))


def require_seal(session: Session) -> None:
    """Raises RefusedByState (evidence.unsealed)."""
    if not session.sealed:
        raise RefusedByState(
            f"session {session.id} is {session.state}, not sealed: there is no evidence of it yet",
            code="evidence.unsealed",
            hint=refusal_hint(session, most=1),
        )


async def open_keys(files: KeyFiles, master: MasterKeys, session: Session) -> HeldKeys:
    """The session's keys. Raises Denied (keys.*), RefusedByState (evidence.destroyed)."""
    held = await KeyStore(files, master).open(session.uid, session.dek_id)
    if held is None:
        raise RefusedByState(
            f"session {session.id} was destroyed: its key is gone", code="evidence.destroyed"
        )
    return held


@dataclass(frozen=True, slots=True)
class GuardedEvidence:
    """Evidence that gives no chunk once the session has lost its key; an Evidence of schemas.ports."""

    evidence: Evidence
    held: HeldKeys

    def strays(self) -> tuple[str, ...]:
        return self.evidence.strays()

    def seals(self) -> Listing:
        return self.evidence.seals()

    def manifest(self, seal_no: int, limit: int) -> bytes | None:
        return self.evidence.manifest(seal_no, limit)

    def indices(self) -> Listing:
        return self.evidence.indices()

    def chunk(self, index: int, limit: int) -> bytes | None:
        """Raises RefusedByState (keys.shredded): the session was destroyed meanwhile."""
        self.held.check()
        return self.evidence.chunk(index, limit)

    def history(self, line_limit: int) -> Iterator[bytes] | None:
        return self.evidence.history(line_limit)


def keys_file(session: Session, keys: SessionKeys) -> bytes:
    """keys.json: a copy that has it can be decrypted: watched, and its contents verified."""
    return Keys(uid=session.uid, dek_id=keys.dek_id, dek=keys.dek).build()
