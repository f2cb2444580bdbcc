"""A session's fragments, made once under fixed keys, and what any system must make of them; for tests.

1. Sealing a fragment draws random keys, so the same recording is the same prepared fragments, sent again.
2. `outcome` runs the pure functions in order and in memory: no broker, no worker, no store.
"""

import hashlib
import itertools
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from handlers.crypto.key_file import build_key_file
from handlers.crypto.keys import SessionKeys
from handlers.format.fragment import FragmentSealer
from handlers.format.merkle_tree import Tree, leaf
from handlers.lifecycle.decide import decide
from handlers.lifecycle.session import evolve, initial
from handlers.seal.index import index_chunks, index_entry, seal_index_chunk
from handlers.seal.material import Material
from handlers.stages.chunk import chunk
from handlers.stages.compress import compress
from handlers.stages.context import Context
from handlers.stages.encrypt import encrypt
from handlers.stages.merkle import merkle
from handlers.stages.record.admit import admit
from handlers.stages.record.fold import Fold
from handlers.stages.record.pieces import FoldedFragment, Identity
from infra.keys.master import Keyring
from infra.keys.session_keys import DiskKeyFiles
from schemas import subjects
from schemas.events import commands
from schemas.events.chunk import Ended, Recorded, Stored
from schemas.events.session import SessionSettings, stored_bytes
from schemas.format.digest import ZERO, h
from schemas.format.fragment import Fragment, Kind, PartSettings, genesis, parse, session_uid
from schemas.format.index import Entry
from tests.support.evidence.offline_fold import Border, offline

HOST = "host-1"
HOST_KEY = Ed25519PrivateKey.from_private_bytes(b"h" * 32)
HOST_PUBLIC = HOST_KEY.public_key().public_bytes_raw()
SETTINGS = SessionSettings(chunk_bytes=1 << 18)
START_US = 1_700_000_000_000_000

Step = tuple[str, int]
"""What a host does next, and how much: data, key (a key frame), tick, pause, wait, part."""


@dataclass(frozen=True)
class Prepared:
    """One session, recorded and not yet sent. The same name and counter: the same uid and data key."""

    session: str
    counter: int
    steps: Sequence[Step]
    settings: SessionSettings = SETTINGS
    fragments: list[bytes] = field(default_factory=list)

    def __post_init__(self) -> None:
        sealer = FragmentSealer(self.uid, 0, HOST_KEY, self.keys.intake_public, self.genesis[0])
        self.fragments.extend(_recorded(sealer, self.steps, random.Random(self.counter)))

    @property
    def uid(self) -> bytes:
        return session_uid(HOST_PUBLIC, self.counter)

    @property
    def keys(self) -> SessionKeys:
        return SessionKeys(h(b"data key of session %d" % self.counter))

    @property
    def genesis(self) -> tuple[bytes, ...]:
        intake = self.keys.intake_public
        return tuple(genesis(self.uid, track, HOST_PUBLIC, self.counter, ZERO, intake) for track in (0, 1))

    @property
    def subject(self) -> str:
        return subjects.recording(HOST, self.session)

    @property
    def kinds(self) -> list[Kind]:
        return [parse(whole).header.kind for whole in self.fragments]

    def create(self) -> commands.Create:
        """The host's request for this session."""
        asked = commands.create_request(self.session, HOST, HOST_PUBLIC, self.counter, ZERO, self.settings)
        return commands.Create(
            session=self.session,
            at_us=START_US,
            who=HOST,
            cause=f"create-{self.counter}",
            host=HOST,
            host_key=HOST_PUBLIC,
            counter=self.counter,
            prev_genesis=ZERO,
            settings=self.settings,
            request=HOST_KEY.sign(commands.CREATE_PREFIX + asked),
        )

    def make_key(self, folder: Path) -> None:
        """Make this session's own key file below an installation's keys/, under its master key."""
        version, master = Keyring(folder).begin()
        DiskKeyFiles(folder / "sessions").make(
            self.uid, build_key_file(master, version, self.uid, self.keys.dek)
        )


def one_shard(first: str, *others: str) -> list[str]:
    """The names, each of the others with a suffix: all are in the partition of the first."""
    p = subjects.partition(first)
    return [first, *(next(n for n in _suffixed(name) if subjects.partition(n) == p) for name in others)]


def _suffixed(name: str) -> Iterator[str]:
    return (f"{name}-{number}" for number in itertools.count())


def key_of(folder: Path, uid: bytes) -> bytes | None:
    """A session's key file below an installation's keys/; empty: erased, None: never made."""
    file = DiskKeyFiles(folder / "sessions").open(uid)
    if file is None:
        return None
    file.close()
    return file.data


@dataclass(frozen=True)
class Outcome:
    """What every run must come to."""

    borders: list[Border]
    digests: list[bytes]
    """H(sealed file), of data chunks and then of index chunks, by index."""
    root: bytes
    sha256: str
    """Of the original bytes."""
    plain: int


def outcome(prepared: Prepared) -> Outcome:
    """The calm result, by the pure functions; its borders are checked against the second implementation."""
    identity = Identity(prepared.session, prepared.uid, HOST, prepared.settings, prepared.genesis)
    admitted = [admit(whole, HOST_PUBLIC) for whole in prepared.fragments]
    fragments = [one for one in admitted if isinstance(one, Fragment)]
    assert len(fragments) == len(admitted)
    fold = Fold(identity)
    events = [out for seq, one in enumerate(fragments, 1) for out in fold.take(FoldedFragment.of(seq, one))]
    recorded = [event for event in events if isinstance(event, Recorded)]
    (ended,) = (event for event in events if isinstance(event, Ended))
    borders = offline(prepared.fragments, prepared.settings)
    assert [border_of(event) for event in recorded] == borders
    plain_sha, stored, keys = hashlib.sha256(), dict[int, Stored](), prepared.keys
    for event in recorded:
        context = Context(event, 1, prepared.settings, keys)
        data = [f for f in fragments[event.first_seq : event.last_seq + 1] if f.header.kind is Kind.DATA]
        _, plain = chunk(0, data, context)
        plain_sha.update(plain)
        proven = merkle(encrypt(*compress(0, plain, context), context)[0], context)
        stored[event.index] = Stored(
            **context.claim(0), entry=proven.entry, leaf=proven.leaf, build=proven.build, codec=proven.codec
        )
    material = _material(prepared, recorded, stored, ended)
    index = [index_entry(one, seal_index_chunk(material, keys.dek, one)) for one in index_chunks(material)]
    entries: list[Entry] = [*material.entries, *index]
    return Outcome(
        borders,
        [entry.digest for entry in entries],
        Tree(leaf(entry.pack()) for entry in entries).root,
        plain_sha.hexdigest(),
        sum(entry.plain for entry in material.entries),
    )


def border_of(event: Recorded) -> Border:
    return event.track, event.first_seq, event.last_seq, event.plain


def block(number: int, size: int, seed: int) -> bytes:
    """Bytes that differ from block to block, half of them compressible."""
    return random.Random(seed * 1_000_003 + number).randbytes(size - size // 2) + bytes(size // 2)


def disturbed(
    prepared: Prepared, chooser: random.Random, *, doubles: float = 0.2, delays: float = 0.3
) -> list[int]:
    """An order of sending, fragments by number: some twice, some late by less than the window.

    A part fragment and the final stay barriers: their sender has everything before them acknowledged.
    """
    placed: list[tuple[float, int]] = []
    shift = 0.0
    for number, kind in enumerate(prepared.kinds):
        at = number + shift
        if kind in (Kind.PART, Kind.FINAL):
            at = max([at, *(earlier + 1 for earlier, _ in placed)])
            shift = at - number
        elif chooser.random() < delays:
            at += chooser.choice((1.4, 9.2, 40.3))
        placed.append((at, number))
        if chooser.random() < doubles:
            placed.append((at + chooser.choice((0.1, 7.3, 90.7)), number))
    return [number for _, number in sorted(placed)]


def _recorded(sealer: FragmentSealer, steps: Sequence[Step], chooser: random.Random) -> Iterator[bytes]:
    now_us = START_US
    seed = chooser.getrandbits(32)
    yield sealer.part(PartSettings(encoder="none", reason="start"), now_us)
    for number, (what, n) in enumerate(steps):
        now_us += 1000
        match what:
            case "data" | "key":
                yield sealer.data(block(number, n, seed), now_us, key_frame=what == "key")
            case "tick":
                yield sealer.tick(now_us)
            case "pause":
                yield sealer.pause("user", now_us)
                yield sealer.resume("user", now_us)
            case "wait":
                now_us += n * 1_000_000
                yield sealer.tick(now_us)
            case _:
                yield sealer.part(PartSettings(encoder="none", reason="resize"), now_us)
    yield sealer.final([], now_us)


def _material(
    prepared: Prepared, recorded: list[Recorded], stored: dict[int, Stored], ended: Ended
) -> Material:
    session, history = initial(prepared.session), list[bytes]()
    head: dict[str, Any] = {"session": prepared.session, "at_us": START_US, "who": "tester"}
    keys, n = prepared.keys, len(recorded)
    for number, command in enumerate(
        (
            prepared.create(),
            commands.Start.model_validate({**head, "cause": "s"}),
            commands.StartComplete(**head, cause="k", dek_id=keys.dek_id, intake=keys.intake_public),
            commands.Stop.model_validate({**head, "cause": "e"}),
            commands.BeginSeal(**head, cause="b", sealed_us=START_US, signer=ZERO, n=n, stored=n),
        ),
        1,
    ):
        (event,) = decide(session, command)
        session = evolve(session, event, number)
        history.append(stored_bytes(event))
    created, started = session.created, session.seal_started
    assert created is not None
    assert started is not None
    return Material(session, created, started, history, recorded, stored, ended)
