"""Makes the session that floor and bare loop record: its keys and settings, without an event log.

1. It equals the pipeline's session: same key hierarchy, same fragments, same frozen settings.
2. Its secrets are made for one measurement, and reach its processes over a pipe.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from handlers.crypto.keys import SessionKeys, new_key
from handlers.crypto.primitives import random_bytes
from handlers.crypto.signatures import public_bytes
from handlers.format.fragment import FragmentSealer
from handlers.stages.record.pieces import Identity
from schemas.events.session import SessionSettings
from schemas.format.digest import ZERO
from schemas.format.fragment import EVENTS, MAIN, PartSettings, genesis, session_uid
from streams.bench.data import units
from streams.host.fragment_message import fragment_bytes

HOST = "bench-host"
COUNTER = 1


@dataclass(frozen=True)
class Case:
    """One session. seed: of the host's evidence key."""

    session: str
    seed: bytes
    dek: bytes
    settings: SessionSettings

    @classmethod
    def new(cls, session: str, settings: SessionSettings) -> "Case":
        return cls(session, random_bytes(32), new_key(), settings)

    @classmethod
    def of(cls, case: dict[str, Any]) -> "Case":
        settings = SessionSettings.model_validate(case["settings"])
        return cls(case["session"], bytes.fromhex(case["seed"]), bytes.fromhex(case["dek"]), settings)

    def as_json(self) -> dict[str, Any]:
        """The JSON that `of` reads."""
        return {
            "session": self.session,
            "seed": self.seed.hex(),
            "dek": self.dek.hex(),
            "settings": self.settings.model_dump(mode="json"),
        }

    @cached_property
    def keys(self) -> SessionKeys:
        return SessionKeys(self.dek)

    @cached_property
    def host_key(self) -> Ed25519PrivateKey:
        return Ed25519PrivateKey.from_private_bytes(self.seed)

    @cached_property
    def host_public(self) -> bytes:
        return public_bytes(self.host_key)

    @cached_property
    def uid(self) -> bytes:
        return session_uid(self.host_public, COUNTER)

    def genesis(self, track: int) -> bytes:
        return genesis(self.uid, track, self.host_public, COUNTER, ZERO, self.keys.intake_public)

    @property
    def identity(self) -> Identity:
        both = (self.genesis(MAIN), self.genesis(EVENTS))
        return Identity(self.session, self.uid, HOST, self.settings, both)

    def fragments(self, source: Path) -> Iterator[bytearray]:
        """All fragments of a file's recording, each sealed when the caller takes it."""
        sealer = FragmentSealer(self.uid, MAIN, self.host_key, self.keys.intake_public, self.genesis(MAIN))
        yield sealer.part(PartSettings(encoder="opaque", reason="start"), _now_us())
        for plain, key_frame in units(source, fragment_bytes(self.settings.chunk_bytes)):
            yield sealer.data(plain, _now_us(), key_frame)
        yield sealer.final((), _now_us())


def _now_us() -> int:
    return time.time_ns() // 1000
