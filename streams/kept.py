"""Owns getting at a session of this installation: its evidence in the store, its keys, whom we trust.

1. The event log is the history, the store has the files, KEYS the wrapped key: nothing is copied here.
2. The installation trusts its own signer and the hosts that are registered; a file for others is
   signed by its root key.
3. Keys are valid from the beginning of time: an installation vouches for keys, and none of its keys has had
   a predecessor. They end with the trust file that names them.
"""

import time
from contextlib import suppress
from dataclasses import dataclass

from handlers.keys import SessionKeys
from handlers.session import Session
from handlers.trust import HOST, LIFE_US, SIGNER, Trust, build_trust, open_trust
from schemas import subjects
from schemas.errors import NotFound, RefusedByState, Rejected
from schemas.host_events import HostRegistered, read_host_event
from schemas.ports import DataDir, Jet, Keyring, MasterKeys, Reader
from schemas.subjects import session_id
from schemas.trust import Keys, TrustKey
from streams.evidence import EvidenceFolders, history_lines, stored_at
from streams.keystore import KeyStore
from streams.lifecycle import EventLog
from streams.shredding import tombstone_name


@dataclass(frozen=True, slots=True)
class Kept:
    """A sealed session of this installation."""

    session: Session
    evidence: EvidenceFolders


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
            hint=f"lucid sessions stop {name}",
        )
    lines = history_lines(await log.history(name))
    return Kept(session, stored_at(data.manifests, data.chunks, session.uid, lines))


async def keys_of(jet: Jet, master: MasterKeys, session: Session) -> SessionKeys:
    """The session's keys. Raises Denied (keys.*), RefusedByState (evidence.destroyed)."""
    keys = await KeyStore(jet, master).session_keys(session.uid, session.dek_id)
    if keys is None:
        raise RefusedByState(
            f"session {session.id} was destroyed: its key is gone", code="evidence.destroyed"
        )
    return keys


def keys_file(session: Session, keys: SessionKeys) -> bytes:
    """keys.json: with it a copy can be watched, and its contents verified."""
    return Keys(uid=session.uid, dek_id=keys.dek_id, dek=keys.dek).build()


async def trust_file(jet: Reader, keyring: Keyring, serial: int) -> bytes:
    """The installation's trust file, signed by its root key.

    Raises NotFound (keys.absent): this data directory holds no signer.
    """
    signer, root = keyring.signer(make=False), keyring.root()
    now_us = time.time_ns() // 1000
    span = {"from_us": 0, "until_us": now_us + LIFE_US, "revoked_us": 0}
    lines = [{"key": signer.public, "role": SIGNER, "name": signer.name, **span}]
    for host, key in sorted((await registered_hosts(jet)).items()):
        lines.append({"key": key, "role": HOST, "name": host, **span})
    keys = [TrustKey.model_validate(line) for line in lines]
    return build_trust(keys, serial=serial, issued_us=now_us, root=root.public, sign=root.sign)


async def own_trust(jet: Reader, keyring: Keyring) -> Trust:
    """Whom this installation trusts itself."""
    return open_trust(await trust_file(jet, keyring, 0), now_us=time.time_ns() // 1000)


async def registered_hosts(jet: Reader) -> dict[str, bytes]:
    """Evidence keys by host name."""
    found: dict[str, bytes] = {}
    async for message in jet.read_all(subjects.LIFECYCLE, subjects.ALL_HOSTS):
        with suppress(Rejected):  # one bad line must not take every host out of the trust file
            event = read_host_event(message.data)
            if isinstance(event, HostRegistered):
                found[event.host] = event.key
    return found
