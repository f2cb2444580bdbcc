"""The store of sealed chunks as others use it: real log, real keys, real disk."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from handlers.format.chunk import ChunkFields, seal_chunk
from handlers.format.merkle_tree import leaf, root, verify_consistency, verify_inclusion
from handlers.lifecycle.session import Session
from infra.blobs.disk import DiskBlobs
from infra.disk.data_dir import DataDir
from infra.jetstream import Jet
from infra.keys.master import Keyring
from infra.keys.session_keys import DiskKeyFiles
from schemas import subjects
from schemas.errors import EvidenceFalse, NotFound, RefusedByState
from schemas.events.commands import Cleanup
from schemas.format.chunk_header import Codec, Suite
from schemas.format.digest import ZERO, h
from schemas.format.file_names import stored_chunk
from streams.event_store.proven_chunks import ProvenSessions
from streams.event_store.session_log import SessionLog
from streams.evidence.chunk_store import ChunkStore
from streams.evidence.evidence_store import EvidenceStore
from streams.evidence.session_trees import SessionTrees
from streams.keys.keystore import KeyStore
from tests.support.evidence.installed_session import InstalledSession, install, publish_proven
from tests.support.evidence.recorded_session import KEYS, NAME, RecordedSession

PIECE = 10_000


class Store:
    """The store over one installation, and the session in it."""

    def __init__(self, jet: Jet, data: DataDir, held: InstalledSession, *, keys: bool = True) -> None:
        self.held, self.log, self.data = held, SessionLog(jet), data
        self.blobs = DiskBlobs(data.chunks, data.quarantine)
        evidence = EvidenceStore(self.blobs, DiskBlobs(data.manifests), DiskBlobs(data.quarantine))
        proven = ProvenSessions(jet)
        self.trees = SessionTrees(self.log, proven, evidence)
        here = KeyStore(DiskKeyFiles(data.keys / "sessions"), Keyring(data.keys)) if keys else None
        self.chunks = ChunkStore(self.log, proven, self.trees, evidence, here)

    async def session(self) -> Session:
        return await self.log.existing(NAME)

    async def put(self, index: int, data: bytes) -> tuple[str, bytes]:
        return await self.chunks.put(NAME, index, pieces(data))

    async def read(self, index: int) -> bytes:
        blob, digest = await self.chunks.find(await self.session(), index)
        with contextlib.closing(blob):
            data = blob.read_at(0, blob.size)
        assert h(data) == digest
        return data

    def names(self) -> list[str]:
        return self.blobs.list()


async def pieces(data: bytes) -> AsyncIterator[bytes]:
    for at in range(0, len(data), PIECE):
        yield data[at : at + PIECE]


@pytest.fixture
def data(tmp_path: Path) -> Iterator[DataDir]:
    data = DataDir(tmp_path / "data")
    data.keys.mkdir(parents=True)
    yield data
    assert [*data.path.rglob(".tmp-*")] == []


@pytest.fixture
async def live(jet: Jet, data: DataDir) -> Store:
    return Store(jet, data, await install(jet, data, RecordedSession(fragments=6), live=True))


@pytest.fixture
async def sealed(jet: Jet, data: DataDir) -> Store:
    return Store(jet, data, await install(jet, data, RecordedSession(fragments=6), live=False))


def other_bytes(store: Store, index: int) -> bytes:
    """Another chunk of this session and index, sealed under its own key."""
    fields = ChunkFields(store.held.uid, index, 0, 0, 0, Codec.NONE, 5000)
    return bytes(seal_chunk(Suite.XCHACHA20_POLY1305, KEYS.dek, fields, os.urandom(5000)))


async def test_a_proven_chunk_is_stored_once_and_comes_back(live: Store) -> None:
    """Breaks: a chunk that was acknowledged is not there, or comes back with other bytes."""
    for index, data in live.held.files.items():
        assert await live.put(index, data) == ("created", h(data))
        assert await live.put(index, data) == ("exists", h(data))
        assert await live.read(index) == data


async def test_of_64_writers_at_once_one_creates_and_every_answer_is_true(live: Store) -> None:
    """Breaks: two clients are both told that they stored a chunk, or half of each is stored."""
    right, wrong = live.held.files[0], other_bytes(live, 0)
    sent = [right if number % 2 else wrong for number in range(64)]
    answers = await asyncio.gather(*(live.put(0, data) for data in sent), return_exceptions=True)
    told = [answer for answer in answers if isinstance(answer, tuple)]
    assert sorted(outcome for outcome, _ in told) == ["created"] + ["exists"] * 31
    assert {digest for _, digest in told} == {h(right)}
    refused = [answer for answer in answers if not isinstance(answer, tuple)]
    assert {getattr(one, "code", one) for one in refused} <= {"chunk.unproven", "chunk.exists"}
    assert len(refused) == 32
    assert await live.read(0) == right
    assert live.names() == [stored_chunk(live.held.uid, 0)]


async def test_a_stored_chunk_is_never_replaced(live: Store) -> None:
    """Breaks: evidence is overwritten by somebody who has the right to store chunks."""
    await live.put(0, live.held.files[0])
    with pytest.raises(RefusedByState, match=r"chunk\.exists"):
        await live.put(0, other_bytes(live, 0))
    assert await live.read(0) == live.held.files[0]


async def test_a_chunk_that_nobody_recorded_is_not_stored(live: Store) -> None:
    """Breaks: a chunk that was made up stands in the way of the one that the pipeline makes."""
    for index in (0, 99):
        with pytest.raises(RefusedByState, match=r"chunk\.unproven"):
            await live.put(index, other_bytes(live, index))
    with pytest.raises(NotFound, match=r"session\.absent"):
        await live.chunks.put("demo-99", 0, pieces(live.held.files[0]))
    with pytest.raises(NotFound, match=r"chunk\.absent"):
        await live.read(0)
    assert live.names() == []


async def test_a_chunk_of_another_place_or_length_is_refused(live: Store) -> None:
    """Breaks: a cut body or the chunk of another session lies under a chunk's name."""
    right = live.held.files[0]
    for body, code in (
        (b"", "chunk.length"),
        (right[:100], "chunk.length"),
        (right[:-1], "chunk.length"),
        (right + b"\0", "chunk.length"),
        (b"\0" * 5000, "chunk.header"),
        (live.held.files[1], "chunk.other"),
        (bytes([*right[:16], *bytes(16), *right[32:]]), "chunk.other"),
    ):
        with pytest.raises(EvidenceFalse) as refused:
            await live.put(0, body)
        assert refused.value.code == code
    assert live.names() == []


async def test_a_forged_event_gets_no_forged_chunk_into_the_store(jet: Jet, data: DataDir) -> None:
    """Breaks: who can publish to the stream of events puts bytes of his own in a chunk's place."""
    recorded = RecordedSession(fragments=6)
    (_, stored), *_ = recorded.stored
    forged = bytearray(recorded.files[0])
    forged[200] ^= 1
    told = stored.model_copy(update={"entry": _with_digest(stored.entry, h(forged))})
    recorded.stored[0] = (0, told)
    store = Store(jet, data, await install(jet, data, recorded, live=True))
    with pytest.raises(EvidenceFalse, match=r"chunk\.tag"):
        await store.put(0, bytes(forged))
    assert store.names() == []
    without_keys = Store(jet, data, store.held, keys=False)
    assert (await without_keys.put(0, bytes(forged)))[0] == "created", "the log is all that it can ask"


def _with_digest(entry: bytes, digest: bytes) -> bytes:
    return entry[:-32] + digest


async def test_a_sealed_session_takes_back_a_lost_file_and_no_new_one(sealed: Store) -> None:
    """Breaks: a chunk is added to evidence after its seal, or a lost file can never be put back."""
    assert sealed.held.manifest is not None
    for index, data in sealed.held.files.items():
        with pytest.raises(RefusedByState, match=r"chunk\.unproven"):
            await sealed.put(index, other_bytes(sealed, index))
        assert (await sealed.put(index, data))[0] == "created"
    new = len(sealed.held.files)
    with pytest.raises(RefusedByState, match=r"chunk\.unproven"):
        await sealed.put(new, other_bytes(sealed, new))
    assert len(sealed.names()) == new


async def test_a_destroyed_session_takes_no_chunk(jet: Jet, live: Store) -> None:
    """Breaks: bytes of a destroyed session come back into the store."""
    ask = {"session": NAME, "at_us": 3, "who": "tester", "cause": "end", "reason": "test"}
    await live.log.execute(Cleanup.model_validate({**ask, "approver": "tester", "backups_until_us": 3}))
    with pytest.raises(RefusedByState, match=r"evidence\.destroyed"):
        await live.put(0, live.held.files[0])
    assert live.names() == []


async def test_a_chunk_that_is_put_while_its_session_is_destroyed_is_removed(
    live: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks: the store is emptied, and the chunk that was under way is written after that."""
    ask = {"session": NAME, "at_us": 3, "who": "tester", "cause": "end", "reason": "test"}
    order = Cleanup.model_validate({**ask, "approver": "tester", "backups_until_us": 3})
    checked = live.chunks._check

    async def destroyed_meanwhile(incoming: object) -> None:
        await checked(incoming)  # type: ignore[arg-type]
        await live.log.execute(order)

    monkeypatch.setattr(live.chunks, "_check", destroyed_meanwhile)
    with pytest.raises(RefusedByState, match=r"evidence\.destroyed"):
        await live.put(0, live.held.files[0])
    assert live.names() == []


KILLED = """
import sys
from pathlib import Path
from infra.blobs.disk import DiskBlobs

file = DiskBlobs(Path(sys.argv[1])).new()
while True:
    file.write(bytes(1 << 16))
    print("written", flush=True)
"""


def test_a_process_that_is_killed_in_the_middle_of_a_put_leaves_nothing(tmp_path: Path) -> None:
    """Breaks: half a chunk stays on the disk, under a name or as space that nobody frees."""
    root = tmp_path / "chunks"
    for _ in range(3):
        with subprocess.Popen([sys.executable, "-c", KILLED, str(root)], stdout=subprocess.PIPE) as child:
            assert child.stdout is not None
            for _ in range(5):
                assert child.stdout.readline() == b"written\n"
            child.send_signal(signal.SIGKILL)
    assert [*root.iterdir()] == []


async def test_the_tree_of_a_sealed_session_is_the_one_that_was_signed(sealed: Store) -> None:
    """Breaks: a proof is given for another tree than the manifest's."""
    tree = await sealed.trees.of(NAME)
    manifest = sealed.held.manifest
    assert manifest is not None
    assert (tree.is_sealed, tree.size, tree.root) == (
        True,
        manifest.merkle.tree_size,
        manifest.merkle.root,
    )
    for index in range(tree.size):
        assert verify_inclusion(tree.inclusion(index), tree.leaves[index], manifest.merkle.root)
        early = tree.consistency(index)
        assert verify_consistency(early, tree.root_of(index), manifest.merkle.root)
    with pytest.raises(NotFound, match=r"chunk\.absent"):
        tree.inclusion(tree.size)
    for wrong in (lambda: tree.inclusion(1, 1), lambda: tree.inclusion(0, 99), lambda: tree.consistency(99)):
        with pytest.raises(RefusedByState, match=r"merkle\.size"):
            wrong()
    again = await sealed.trees.of(NAME)
    assert again.entries is tree.entries


async def test_a_live_tree_grows_with_every_proven_chunk_and_stops_at_a_hole(jet: Jet, data: DataDir) -> None:
    """Breaks: a proof of a running session counts a chunk that is not made yet."""
    recorded = RecordedSession(fragments=12)
    stored, recorded.stored = recorded.stored, []
    live = Store(jet, data, await install(jet, data, recorded, live=True))
    assert (await live.trees.of(NAME)).size == 0
    assert len(stored) >= 4
    for number in (1, 0, 3):
        await publish_proven(jet, stored[number][1])
    tree = await live.trees.of(NAME)
    assert (tree.is_sealed, tree.size) == (False, 2)
    assert tree.root == root([leaf(stored[0][1].entry), leaf(stored[1][1].entry)])
    await publish_proven(jet, stored[2][1])
    grown = await live.trees.of(NAME)
    assert grown.size == 4
    assert verify_consistency(grown.consistency(2), tree.root, grown.root)


async def test_a_lost_chunk_has_the_leaf_of_the_seal_in_a_live_tree(jet: Jet, data: DataDir) -> None:
    """Breaks: the tree of a live session ends at a chunk whose loss was accepted long ago."""
    recorded = RecordedSession(fragments=12, lost=(1,))
    live = Store(jet, data, await install(jet, data, recorded, live=True))
    for event in recorded.recorded:
        body = json.dumps(event.model_dump(mode="json")).encode()
        await jet.publish(subjects.chunk(subjects.RECORDED, NAME), body)
    tree = await live.trees.of(NAME)
    assert tree.size == len(recorded.recorded)
    assert (tree.entry(1).lost, tree.entry(1).digest) == (True, ZERO)
    material = recorded.material
    assert list(tree.entries) == [entry.pack() for entry in material.entries]
