"""Keeps the identity of one RDP host: its evidence key, its counter, its last genesis.

    hosts/<host>/evidence.json   {seed}                      made once
    hosts/<host>/state.json      {counter, genesis, pending} replaced as a whole, durably
                                 pending: a session, or a list of sessions that have the last counters

The folder itself is locked (infra.disk.folder_lock). None of the three may be lost or used twice.

1. A counter is durable before it leaves the host, so no two sessions have one uid.
2. `pending` names the session that has a counter and no genesis yet; several, if they began together. After a
   crash there one session asks again with the same counter, and another session takes the next one.
3. The genesis is durable before the first fragment is sent (`settle`): every session with fragments is in the
   host's line.
4. Hold the lock from `open` to `settle`; after that the next session of this host may begin.
"""

import json
import os
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from infra.access.host_tokens import HostToken
from infra.blobs.disk import DiskBlobs
from infra.disk.durable import write_private
from infra.disk.errors import translated
from infra.disk.folder_lock import lock_folder
from infra.keys.json_files import Members, parsed
from schemas.errors import Unavailable
from schemas.subjects import host_id

GENESIS_BYTES = 32


class HostIdentity:
    """The port HostIdentity over one locked folder."""

    def __init__(self, hosts: Path, host: str) -> None:
        """Lock the folder. Raises Unavailable (host.locked)."""
        self.host = host_id(host)
        self.directory = hosts / self.host
        with translated(self.directory, "keys"):
            self._lock = self._locked()
            self._files = DiskBlobs(self.directory)
            self._files.put("evidence.json", json.dumps({"seed": secrets.token_bytes(32).hex()}).encode())
            seed = bytes.fromhex(self._read("evidence.json")["seed"])
            self._files.put("state.json", _state(0, bytes(GENESIS_BYTES), ""))
        self.key = Ed25519PrivateKey.from_private_bytes(seed)
        self.public = self.key.public_key().public_bytes_raw()
        self._known: Members | None = None
        """The state once it was read: while the folder is locked, nobody else changes it."""

    def _locked(self) -> int:
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            return lock_folder(self.directory)
        except BlockingIOError:
            raise Unavailable(
                f"another process is starting a session of host {self.host}",
                code="host.locked",
                hint="try again in a moment",
            ) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Release the lock. A second call does nothing."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    @property
    def credential(self) -> HostToken:
        return HostToken(self.host, self.key)

    @property
    def prev_genesis(self) -> bytes:
        return bytes.fromhex(self._state["genesis"])

    @property
    def pending(self) -> tuple[tuple[str, int], ...]:
        counter: int = self._state["counter"]
        named = self._state["pending"]
        sessions: list[str] = [named] if isinstance(named, str) else named
        first = counter - len(sessions) + 1
        return tuple((session, first + place) for place, session in enumerate(sessions) if session)

    def begin(self, session: str) -> int:
        counter: int = self._state["counter"]
        if self._state["pending"] == session:
            return counter
        self._write(counter + 1, self.prev_genesis, session)
        return counter + 1

    def begin_all(self, sessions: Sequence[str], genesis: bytes) -> int:
        first: int = self._state["counter"] + 1
        self._write(self._state["counter"] + len(sessions), genesis, list(sessions))
        return first

    def settle(self, session: str, genesis: bytes) -> None:
        if self.pending and self.pending[-1][0] == session:
            self._write(self._state["counter"], genesis, "")

    @property
    def _state(self) -> Members:
        if self._known is None:
            self._known = self._read("state.json")
        return self._known

    def _write(self, counter: int, genesis: bytes, pending: str | list[str]) -> None:
        raw = _state(counter, genesis, pending)
        path = self.directory / "state.json"
        with translated(path, "keys"):
            write_private(path, raw)
        self._known = json.loads(raw)

    def _read(self, name: str) -> Members:
        return parsed(self._files.read(name) or b"", self.directory / name, _damaged)


def _damaged(path: Path) -> Unavailable:
    return Unavailable(
        f"{path} is damaged",
        code="host.damaged",
        hint="restore it, or register this host under a new name: a counter must never be used twice",
    )


def _state(counter: int, genesis: bytes, pending: str | list[str]) -> bytes:
    return json.dumps({"counter": counter, "genesis": genesis.hex(), "pending": pending}).encode()
