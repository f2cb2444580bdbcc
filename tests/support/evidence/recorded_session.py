"""A whole session in memory: host, fold, chunks, log and seal, by the real functions; for tests."""

from collections.abc import Collection
from dataclasses import dataclass, field, replace
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from handlers.crypto.keys import SessionKeys
from handlers.format.chunk import ChunkFields, seal_chunk
from handlers.format.compression import compress
from handlers.format.fragment import FragmentSealer, end_fragment, open_data
from handlers.format.merkle_tree import leaf
from handlers.lifecycle.decide import decide
from handlers.lifecycle.session import Session, evolve, initial
from handlers.seal.index import index_chunks, index_entry, seal_index_chunk
from handlers.seal.manifest import seal
from handlers.seal.material import Material, gather
from handlers.stages.record.admit import admit
from handlers.stages.record.fold import Fold, Identity
from handlers.stages.record.pieces import FoldedFragment
from infra.keys.signers import Signer
from schemas.events import commands
from schemas.events.chunk import Ended, Recorded, Stored
from schemas.events.session import SessionSettings, stored_bytes
from schemas.format import dsse
from schemas.format.chunk_header import Codec, Suite
from schemas.format.digest import ZERO, h
from schemas.format.fragment import SIGNED, Kind, PartSettings, genesis, head, parse
from schemas.format.index import Entry
from schemas.format.jcs import jcs
from schemas.format.manifest import Manifest
from schemas.format.trust import TrustFile, TrustKey

HOST = Ed25519PrivateKey.from_private_bytes(b"h" * 32)
SIGNER = Ed25519PrivateKey.from_private_bytes(b"s" * 32)
ROOT = Ed25519PrivateKey.from_private_bytes(b"r" * 32)
HOST_PUBLIC = HOST.public_key().public_bytes_raw()
SIGNING = Signer("signer-1", SIGNER)
KEYS = SessionKeys(b"d" * 32)
START_US = 1_700_000_000_000_000
STEP_US = 100_000
PART = PartSettings(encoder="x264", reason="start")
SETTINGS = SessionSettings(chunk_bytes=1 << 18)
NAME = "demo-01"


def screen(number: int, rows: int = 800) -> bytes:
    """One fragment's plain bytes: half compressible."""
    return b"".join(h(b"%d %d" % (number, n)) + bytes(32) for n in range(rows))


@dataclass
class RecordedSession:
    """`lost`: chunk indices given up. `dropped`: fragments that never arrived, by order of sending.

    `small`: fragments of few bytes. `twice`: one fragment was signed in two versions. `silent_us`: how long
    the host sent nothing, once.
    """

    suite: int = 1
    codec: int = 1
    fragments: int = 12
    end: bool = False
    lost: Collection[int] = ()
    dropped: Collection[int] = ()
    twice: bool = False
    silent_us: int = 0
    small: bool = False
    counter: int = 1
    session: Session = field(default_factory=lambda: initial(NAME))
    history: list[bytes] = field(default_factory=list)
    recorded: list[Recorded] = field(default_factory=list)
    stored: list[tuple[int, Stored]] = field(default_factory=list)
    files: dict[int, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        settings = SETTINGS.model_copy(update={"suite": self.suite, "codec": self.codec})
        self._create(settings)
        created = self.session.created
        assert created is not None
        self.uid = created.uid
        self.genesis = tuple(
            genesis(self.uid, track, HOST_PUBLIC, self.counter, ZERO, KEYS.intake_public) for track in (0, 1)
        )
        fold = Fold(Identity(NAME, self.uid, "host-1", settings, self.genesis))
        self.sent = self._record()
        pieces = [self._piece(n, w) for n, w in enumerate(self.sent, 1) if n - 1 not in self.dropped]
        outputs = [output for piece in pieces for output in fold.take(piece)]
        if self.end:
            end = end_fragment(self.uid, "aborted", "operator", (), START_US + 10**9, SIGNER)
            outputs += fold.take(self._piece(len(self.sent) + 1, end))
        self.recorded = [output for output in outputs if isinstance(output, Recorded)]
        (self.ended,) = (output for output in outputs if isinstance(output, Ended))
        for event in self.recorded:
            if event.index not in self.lost:
                self._store(event)
        for index in self.lost:
            self.do(commands.AcceptLoss, index=index, reason="disk_died")
        self.do(commands.Stop)
        self.do(
            commands.BeginSeal,
            sealed_us=START_US + 2 * 10**9,
            signer=dsse.fingerprint(SIGNING.public).hex(),
            n=len(self.recorded),
            stored=len(self.recorded) + 100,
        )

    def do(self, kind: type[commands.Command], **more: object) -> None:
        said = {"session": NAME, "at_us": START_US + len(self.history), "who": "tester", **more}
        order = kind.model_validate({**said, "cause": f"c{len(self.history)}"})
        for event in decide(self.session, order):
            self.session = evolve(self.session, event, self.session.last_seq + 1)
            self.history.append(stored_bytes(event))

    @property
    def material(self) -> Material:
        return gather(self.session, self.history, self.recorded, self.stored, self.ended)

    def seal(self) -> tuple[Manifest, bytes]:
        material = self.material
        entries = []
        for chunk in index_chunks(material):
            self.files[chunk.index] = seal_index_chunk(material, KEYS.dek, chunk)
            entries.append(index_entry(chunk, self.files[chunk.index]))
        return seal(material, entries, SIGNING)

    def write(self, directory: Path) -> Manifest:
        """An evidence copy with keys.json, and trust.json beside it."""
        manifest, envelope = self.seal()
        for name in ("manifests", "chunks"):
            (directory / "copy" / name).mkdir(parents=True)
        copy = directory / "copy"
        (copy / "manifests" / "1.dsse.json").write_bytes(envelope)
        (copy / "history.ndjson").write_bytes(b"".join(line + b"\n" for line in self.history))
        for index, data in self.files.items():
            (copy / "chunks" / f"{index:010}").write_bytes(data)
        said = {"uid": self.uid.hex(), "dek_id": KEYS.dek_id.hex(), "dek": KEYS.dek.hex()}
        (directory / "keys.json").write_bytes(jcs(said))
        (directory / "trust.json").write_bytes(trust())
        return manifest

    def plain(self, track: int) -> bytes:
        """What the host recorded on a track, as far as chunks hold it."""
        kept = [e for e in self.recorded if e.track == track and e.index not in self.lost]
        return b"".join(self._opened(event) for event in kept)

    def _create(self, settings: SessionSettings) -> None:
        asked = commands.create_request(NAME, "host-1", HOST_PUBLIC, self.counter, ZERO, settings)
        self.do(
            commands.Create,
            host="host-1",
            host_key=HOST_PUBLIC.hex(),
            counter=self.counter,
            prev_genesis=ZERO.hex(),
            settings=settings,
            request=HOST.sign(commands.CREATE_PREFIX + asked).hex(),
        )
        self.do(commands.Start)
        self.do(commands.StartComplete, dek_id=KEYS.dek_id.hex(), intake=KEYS.intake_public.hex())

    def _record(self) -> list[bytes]:
        tracks = [FragmentSealer(self.uid, t, HOST, KEYS.intake_public, self.genesis[t]) for t in (0, 1)]
        main, events = tracks
        now_us = START_US
        sent = [main.part(PART, now_us), events.part(PART, now_us)]
        rows = 20 if self.small else 800
        for number in range(self.fragments):
            now_us += STEP_US + (self.silent_us if number == 1 else 0)
            sent.append(main.data(screen(number, rows), now_us, key_frame=number % 4 == 0))
            if self.twice and number == 1:
                sent.append(twin(sent[-1]))
            if number % 3 == 0:
                sent.append(events.data(b"event %d" % number, now_us))
            if number == self.fragments // 2:
                sent.append(main.gap(now_us, now_us + 5, 3, "encoder_slow", now_us))
                sent.append(main.pause("user", now_us))
                sent.append(main.resume("user", now_us))
                sent.append(main.part(PartSettings(encoder="x264", reason="resize"), now_us))
        if not self.end:
            sent.append(main.final([events.tail()], now_us))
        return sent

    def _piece(self, seq: int, whole: bytes) -> FoldedFragment:
        fragment = admit(whole, HOST_PUBLIC, lambda: [SIGNING.public])
        return FoldedFragment.of(seq, fragment)  # type: ignore[arg-type]

    def _opened(self, event: Recorded) -> bytes:
        key = KEYS.open_part_key(parse(event.part_fragment))
        plain, seq = b"", 0
        for step in event.stream:
            seq += step
            fragment = parse(self.sent[seq - 1]) if seq <= len(self.sent) else None
            if fragment is not None and fragment.header.kind is Kind.DATA:
                plain += open_data(key, fragment)
        return plain

    def _store(self, event: Recorded) -> None:
        plain = self._opened(event)
        made = compress(plain, Codec(self.codec), 3, 1024)
        fields = ChunkFields(
            self.uid, event.index, event.track, event.part, event.offset, made.codec, event.plain
        )
        sealed = bytes(seal_chunk(Suite(self.suite), KEYS.dek, fields, made.payload))
        self.files[event.index] = sealed
        entry = Entry(
            event.index, event.track, event.part, event.offset, event.plain, len(sealed), event.first_us,
            event.last_us, event.first_seq, event.last_seq, event.prev_head, event.last_head, h(sealed),
        )  # fmt: skip
        said = {"session": NAME, "uid": self.uid.hex(), "index": event.index, "recorded": event.index + 1}
        stored = Stored.model_validate(
            {
                **said,
                "entry": entry.pack(),
                "leaf": leaf(entry.pack()),
                "build": made.build,
                "codec": made.codec,
            }
        )
        self.stored.append((event.index + 10, stored))


def twin(whole: bytes) -> bytes:
    """Another fragment for the same place, as an honest host never makes it."""
    known = parse(whole)
    raw = replace(known.header, time_us=known.header.time_us + 1).pack()
    signature = HOST.sign(SIGNED + head(raw, known.body_digest))
    return b"".join((raw, known.body, signature))


def trust() -> bytes:
    """A trust file that lists signer and host."""
    span = {"from_us": 0, "until_us": 2**52, "revoked_us": 0}
    document = TrustFile(
        serial=1,
        root=ROOT.public_key().public_bytes_raw(),
        issued_us=1,
        expires_us=2**52,
        keys=(
            TrustKey.model_validate({"key": SIGNING.public, "role": "signer", "name": "signer-1", **span}),
            TrustKey.model_validate({"key": HOST_PUBLIC, "role": "host", "name": "host-1", **span}),
        ),
    )
    return dsse.build(document.build(), dsse.TRUST, ROOT.sign, ROOT.public_key().public_bytes_raw())
