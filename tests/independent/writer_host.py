"""The host's half of the independent writer: what is recorded, sealed, chained and signed.

1. `Plan` says everything; the same plan gives the same fragments, but for the HPKE envelopes,
   which are random unless `Plan.envelope` gives the one of the only part.
2. Every secret is a fixed one of the tests (`secret`), so that examples can be recomputed.

Source: docs/format.md §2 to §4.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import reader_crypto as crypto
import reader_shapes as shapes
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, MLKEM768X25519PublicKey, Suite
from reader_bytes import DATA, FINAL, GAP, PART, PAUSE, RESUME, TICK, Fragment, Header
from reader_crypto import h

START_US = 1_772_615_544_000_000
HPKE = Suite(KEM.MLKEM768_X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
Step = tuple[int, int, bytes, int]  # track, kind, plain (or reason), flags


def secret(name: str) -> bytes:
    """A fixed 32-byte secret of the tests, by name."""
    return h(b"a secret of the tests: " + name.encode())


def signing(name: str) -> tuple[Ed25519PrivateKey, bytes]:
    key = Ed25519PrivateKey.from_private_bytes(secret(name))
    return key, key.public_key().public_bytes_raw()


@dataclass(frozen=True)
class Plan:
    """What is to be written; the defaults give a session with nothing amiss."""

    steps: tuple[Step, ...]
    suite: int = 1
    codec: int = 1
    chunk_bytes: int = 1 << 18
    chunk_max_seconds: int = 30
    end: str = "final"
    drop: frozenset[tuple[int, int]] = frozenset()  # (track, seq) the platform never got
    lose: frozenset[int] = frozenset()  # chunk indices whose file is lost
    twice: frozenset[tuple[int, int]] = frozenset()  # (track, seq) signed in two versions
    seals: int = 1
    signer: str = "signer"
    session: str = "demo-01"
    host: str = "demo-host"
    pace_us: int = 100_000  # between two fragments
    skip: int = 0  # part numbers that the host leaves out before each part but the first
    envelope: bytes = b""  # enc ‖ ciphertext of the only part


class Host:
    """Seals, chains and signs the fragments of one session."""

    def __init__(self, intake_public: bytes, plan: Plan, counter: int = 7) -> None:
        self.key, self.public = signing("host")
        self.plan, self.counter, self.intake_public = plan, counter, intake_public
        self.prev_genesis = h(b"the session before")
        self.uid = crypto.session_uid(self.public, counter)
        self.heads: dict[int, bytes] = {}
        self.seqs: dict[int, int] = {}
        self.parts: dict[int, int] = {}
        self.plain: dict[int, int] = {}
        self.time_us = START_US

    def genesis(self, track: int) -> bytes:
        intake = h(self.intake_public)
        return crypto.genesis(self.uid, track, self.public, self.counter, self.prev_genesis, intake)

    def part_key(self, track: int) -> bytes:
        return secret(f"part {track} {self.parts[track]}")

    def run(self, steps: Iterable[Step]) -> list[Fragment]:
        made = [self.make(*step) for step in steps]
        if self.plan.end == "final":
            made.append(self.make(0, FINAL, b"", 0))
        return made

    def created(self) -> dict[str, Any]:
        """The first event of the history: what the host asked for, and its signature over that."""
        plan = self.plan
        asked = {
            "session": plan.session, "host": plan.host, "host_key": self.public.hex(),
            "counter": self.counter, "prev_genesis": self.prev_genesis.hex(),
            "settings": {
                "suite": plan.suite, "codec": plan.codec, "level": 3, "chunk_bytes": plan.chunk_bytes,
                "chunk_max_seconds": plan.chunk_max_seconds, "threshold": 0,
            },
        }  # fmt: skip
        request = self.key.sign(crypto.CREATE_PREFIX + shapes.jcs(asked)).hex()
        return asked | {"type": "Created", "uid": self.uid.hex(), "request": request}

    def make(self, track: int, kind: int, content: bytes, flags: int = 0) -> Fragment:
        self.time_us += self.plan.pace_us
        seq = self.seqs.get(track, -1) + 1
        if kind == PART:
            self.parts[track] = self.parts[track] + 1 + self.plan.skip if track in self.parts else 0
        prev = self.heads[track] if seq else self.genesis(track)
        header = Header(kind, flags, track, self.parts[track], self.uid, seq, self.time_us, 0, prev)
        raw, body = self._seal(header, content)
        signature = self.key.sign(crypto.FRAGMENT_PREFIX + crypto.fragment_head(raw, h(body)))
        length = int.from_bytes(raw[48:52], "little")
        fragment = Fragment(replace(header, body_length=length), raw, body, signature)
        self.heads[track], self.seqs[track] = fragment.head, seq
        self.plain[track] = self.plain.get(track, 0) + fragment.header.plain
        return fragment

    def _seal(self, header: Header, content: bytes) -> tuple[bytes, bytes]:
        reason = content.decode() if header.kind in (PART, GAP, PAUSE, RESUME) else ""
        if header.kind == DATA:
            raw = replace(header, body_length=len(content) + 16).pack()
            return raw, crypto.seal_data(self.part_key(header.track), raw, header.track, header.seq, content)
        if header.kind == PART:
            settings = shapes.jcs({"encoder": "libx264", "reason": reason})
            raw = replace(header, body_length=2 + len(settings) + 1120 + 48).pack()
            info = b"lucid v1 part" + raw + settings
            envelope = self.plan.envelope or self._envelope(info, self.part_key(header.track))
            return raw, len(settings).to_bytes(2, "little") + settings + envelope
        value: dict[str, Any] = {"reason": reason}
        if header.kind == GAP:
            value |= {"from_us": self.time_us - 50_000, "to_us": self.time_us, "frames": 3}
        if header.kind == FINAL:
            value = {"tracks": self.state()}
        body = b"" if header.kind == TICK else shapes.jcs(value)
        return replace(header, body_length=len(body)).pack(), body

    def _envelope(self, info: bytes, part_key: bytes) -> bytes:
        lattice = MLKEM768PublicKey.from_public_bytes(self.intake_public[:1184])
        curve = X25519PublicKey.from_public_bytes(self.intake_public[1184:])
        return HPKE.encrypt(part_key, MLKEM768X25519PublicKey(lattice, curve), info=info)

    def state(self) -> list[dict[str, Any]]:
        return [
            {"id": t, "last_seq": self.seqs[t], "head": self.heads[t].hex(), "plain": self.plain[t]}
            for t in sorted(self.seqs)
        ]

    def twin(self, fragment: Fragment) -> Fragment:
        """A second fragment with the same track and seq: what an honest host never makes."""
        raw = replace(fragment.header, time_us=fragment.header.time_us + 1).pack()
        head = crypto.fragment_head(raw, h(fragment.body))
        return Fragment(fragment.header, raw, fragment.body, self.key.sign(crypto.FRAGMENT_PREFIX + head))


def steps(seconds: int = 4, size: int = 40_000) -> tuple[Step, ...]:
    """Two tracks, two parts on the main one, every kind of fragment, `seconds` × 3 data fragments."""
    made: list[Step] = [(0, PART, b"start", 0), (1, PART, b"start", 0)]
    for second in range(seconds):
        for third in range(3):
            words = secret(f"{second} {third}").hex().encode()
            made.append((0, DATA, (words * (size // 64 + 1))[: size + third], 1 if third == 0 else 0))
        made.append((1, DATA, b'{"event":"window"}' * 9, 0))
        if second == 1:
            made += [(0, GAP, b"overrun", 0), (0, PAUSE, b"locked", 0), (0, RESUME, b"unlocked", 0)]
            made += [(0, TICK, b"", 0), (0, PART, b"resize", 0)]
    return tuple(made)
