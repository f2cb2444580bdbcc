"""A host in memory and the fold that takes its fragments."""

from collections.abc import Sequence
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from handlers.crypto.keys import SessionKeys
from handlers.crypto.signatures import public_bytes
from handlers.format.fragment import FragmentSealer
from handlers.stages.record.admit import admit
from handlers.stages.record.fold import Fold
from handlers.stages.record.pieces import FoldedFragment, Identity, Output
from schemas.events.session import SessionSettings
from schemas.format.fragment import Fragment, PartSettings, genesis, session_uid

HOST = Ed25519PrivateKey.from_private_bytes(b"h" * 32)


SIGNER = Ed25519PrivateKey.from_private_bytes(b"s" * 32)


KEYS = SessionKeys(b"d" * 32)


PUBLIC = public_bytes(HOST)


UID = session_uid(PUBLIC, 1)


GENESIS = tuple(genesis(UID, track, PUBLIC, 1, bytes(32), KEYS.intake_public) for track in (0, 1))


S = 1 << 18


IDENTITY = Identity("fold", UID, "host", SessionSettings(chunk_bytes=S, chunk_max_seconds=10), GENESIS)


PART = PartSettings(encoder="none", reason="start")


@dataclass
class Host:
    """A host with two tracks and a clock of its own."""

    now_us: int = 1_000_000

    def __post_init__(self) -> None:
        self.tracks = [FragmentSealer(UID, t, HOST, KEYS.intake_public, GENESIS[t]) for t in (0, 1)]

    def make(self, step: tuple[str, int, int]) -> list[bytes]:
        """Fragments of one step: what, track, size or seconds."""
        what, track, n = step
        sealer = self.tracks[track]
        self.now_us += 1000
        first = [] if sealer.state.next_seq else [sealer.part(PART, self.now_us)]
        match what:
            case "data":
                return [*first, sealer.data(bytes(n), self.now_us)]
            case "key":
                return [*first, sealer.data(bytes(n), self.now_us, key_frame=True)]
            case "tick":
                return [*first, sealer.tick(self.now_us)]
            case "pause":
                return [*first, sealer.pause("user", self.now_us), sealer.resume("user", self.now_us)]
            case "wait":
                self.now_us += n * 50
                return [*first, sealer.tick(self.now_us)]
            case _:
                return first or [sealer.part(PART, self.now_us)]

    def final(self) -> list[bytes]:
        main, events = self.tracks
        first = [] if main.state.next_seq else [main.part(PART, self.now_us)]
        others = [events.tail()] if events.state.next_seq else []
        return [*first, main.final(others, self.now_us)]


def looked_at(whole: bytes, seq: int) -> FoldedFragment:
    found = admit(whole, PUBLIC, lambda: [public_bytes(SIGNER)])
    assert isinstance(found, Fragment), found
    return FoldedFragment.of(seq, found)


def run(fold: Fold, pieces: Sequence[FoldedFragment]) -> list[Output]:
    return [output for piece in pieces for output in fold.take(piece)]
