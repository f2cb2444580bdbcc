"""Owns getting at a session of this installation: its evidence in the store, its keys, whom we trust.

1. The event log is the history, the store has the files, the key files the keys: nothing is copied here.
2. The installation trusts its own signers, each for its time, and the hosts that are registered. A file for
   others is signed by its root key, which nothing else needs: it may be kept offline.
3. What has not ended yet, a host's key or the newest signer, ends with the trust file that names it.
"""

import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass

from handlers.crypto.keys import SessionKeys
from handlers.crypto.trust import HOST, LIFE_US, SIGNER, Trust, build_trust
from handlers.lifecycle.session import Session
from handlers.lifecycle.view import refusal_hint
from schemas import subjects
from schemas.errors import Denied, NotFound, RefusedByState, Rejected
from schemas.events.host import HostRegistered, read_host_event
from schemas.format.file_names import tombstone_name
from schemas.format.trust import Keys, TrustKey
from schemas.ports import DataDir, Jet, KeyFiles, MasterKeys, Reader, Signer, Signers
from schemas.ports.evidence import Evidence, Listing
from schemas.subjects import session_id
from streams.event_store.session_log import EventLog
from streams.keys.folder import keys_noted
from streams.keys.keystore import HeldKeys, KeyStore


@dataclass(frozen=True, slots=True)
class Kept:
    """A sealed session of this installation."""

    session: Session
    evidence: Evidence


async def kept(jet: Jet, data: DataDir, name: str) -> Kept:
    """The session, which must be sealed and not destroyed.

    Raises NotFound (session.absent), RefusedByState (evidence.unsealed, evidence.destroyed).
    """
    log = EventLog(jet)
    session = await log.load(session_id(name))
    if session.created is None:
        raise NotFound(f"there is no session {name}", code="session.absent", hint="lucid sessions list")
    if session.shredded is not None:
        stone = data.manifests / tombstone_name(session.uid)
        raise RefusedByState(
            f"session {name} was destroyed: its key is gone",
            code="evidence.destroyed",
            hint=f"its tombstone says when and why: lucid verify {stone} --trust FILE",
            place=str(stone),
        )
    if not session.sealed:
        raise RefusedByState(
            f"session {name} is {session.state}, not sealed: there is no evidence of it yet",
            code="evidence.unsealed",
            hint=refusal_hint(session, most=1),
        )
    return Kept(session, data.session_evidence(session.uid, await log.history(name)))


async def keys_of(files: KeyFiles, master: MasterKeys, session: Session) -> HeldKeys:
    """The session's keys. Raises Denied (keys.*), RefusedByState (evidence.destroyed)."""
    held = await KeyStore(files, master).open(session.uid, session.dek_id)
    if held is None:
        raise RefusedByState(
            f"session {session.id} was destroyed: its key is gone", code="evidence.destroyed"
        )
    return held


@dataclass(frozen=True, slots=True)
class WhileKept:
    """Evidence whose chunks are read only while the session's key stands; a verify_reader.Evidence."""

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
    """keys.json: with it a copy can be watched, and its contents verified."""
    return Keys(uid=session.uid, dek_id=keys.dek_id, dek=keys.dek).build()


def trust_file(keys: Iterable[TrustKey], root: Signer, serial: int) -> bytes:
    """The installation's trust file over its `trusted_keys`."""
    now_us = time.time_ns() // 1000
    return build_trust(keys, serial=serial, issued_us=now_us, root=root.public, sign=root.sign)


async def own_trust(jet: Reader, signers: Signers) -> Trust:
    """Whom this installation trusts itself; no root has signed it. Raises as `trusted_keys`."""
    return Trust(b"", 0, tuple(await trusted_keys(jet, signers)))


async def trusted_keys(jet: Reader, signers: Signers) -> list[TrustKey]:
    """Signers and hosts, as a trust file lists them.

    Raises NotFound (keys.no_signer), Denied (keys.foreign).
    """
    held = signers.held()
    if not held:
        raise NotFound(
            "this data directory holds no signer", code="keys.no_signer", hint="lucid up, or set LUCID_DATA"
        )
    noted, _ = await keys_noted(jet)
    if noted is not None and not set(noted.signers) <= {one.fingerprint for one in held}:
        raise Denied(
            "this data directory does not hold every signer that the log knows",
            code="keys.foreign",
            hint="set LUCID_DATA to the one that belongs to this log, or put its keys/ back: lucid doctor",
        )
    end_us = time.time_ns() // 1000 + LIFE_US
    listed = [
        TrustKey(
            key=signer.public,
            role=SIGNER,
            name=signer.name,
            from_us=signer.from_us,
            until_us=signer.until_us or end_us,
            revoked_us=signer.revoked_us,
        )
        for signer in held
    ]
    return listed + [
        TrustKey(key=key, role=HOST, name=host, from_us=0, until_us=end_us, revoked_us=0)
        for host, key in sorted((await registered_hosts(jet)).items())
    ]


async def registered_hosts(jet: Reader) -> dict[str, bytes]:
    """Evidence keys by host name."""
    found: dict[str, bytes] = {}
    async for message in jet.read_all(subjects.LIFECYCLE, subjects.ALL_HOSTS):
        with suppress(Rejected):  # one bad line must not take every host out of the trust file
            event = read_host_event(message.data)
            if isinstance(event, HostRegistered):
                found[event.host] = event.key
    return found
