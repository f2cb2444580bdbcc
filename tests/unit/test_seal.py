"""Sealing: manifests and index chunks, judged by the independent reader of the format."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from handlers.lifecycle.session import evolve
from handlers.seal.index import fits, index_chunks, index_entry, seal_index_chunk
from handlers.seal.manifest import seal
from handlers.seal.material import gather
from infra.keys.signers import Signer
from schemas.errors import Denied, Rejected
from schemas.events.session import EVENT
from schemas.format.chunk_header import Codec
from schemas.format.digest import h
from schemas.format.index import Entry, FragmentRow, KeyFrameRow, MetadataRow, rows
from schemas.format.manifest import Manifest
from tests.support.evidence.recorded_session import HOST, KEYS, NAME, SIGNING, START_US, RecordedSession

READER = Path(__file__).parents[1] / "independent" / "reader.py"

CASES: dict[str, Callable[[], RecordedSession]] = {
    "plain": RecordedSession,
    "aes": lambda: RecordedSession(suite=2, codec=4),
    "stored raw": lambda: RecordedSession(codec=0),
    "ended by the platform": lambda: RecordedSession(end=True),
    "a fragment lost": lambda: RecordedSession(dropped={5}, end=True),
    "fragments lost before a part": lambda: RecordedSession(dropped={13, 14}, end=True),
    "a gap fragment explains it": lambda: RecordedSession(dropped={10}, end=True),
    "a chunk lost": lambda: RecordedSession(lost={1}),
    "two chunks lost in a row": lambda: RecordedSession(lost={0, 1}),
    "a chunk lost beside a hole": lambda: RecordedSession(lost={1}, dropped={8}, end=True),
    "a fragment lost before the final": lambda: RecordedSession(dropped={21}),
    "the end of a track lost": lambda: RecordedSession(dropped={19}),
    "a whole track lost": lambda: RecordedSession(dropped={1, 3, 7, 11, 19}),
    "the part of a track lost": lambda: RecordedSession(dropped={1}),
    "every chunk lost": lambda: RecordedSession(lost=range(9), fragments=20),
    "long": lambda: RecordedSession(fragments=60),
}


def read(directory: Path, *more: str) -> subprocess.CompletedProcess[str]:
    where = [str(READER), str(directory / "copy"), "--trust", str(directory / "trust.json")]
    command = [sys.executable, *where, *more]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("case", CASES)
def test_what_is_sealed_verifies_for_a_stranger(case: str, tmp_path: Path) -> None:
    """Breaks: evidence that only our own program calls true."""
    session = CASES[case]()
    manifest = session.write(tmp_path)
    told = read(tmp_path)
    assert told.returncode == 0, told.stdout + told.stderr
    with_keys = read(tmp_path, "--keys", str(tmp_path / "keys.json"), "--out", str(tmp_path / "out"))
    assert with_keys.returncode == 0, with_keys.stdout + with_keys.stderr
    assert (tmp_path / "out").read_bytes() == session.plain(0)
    assert bool(manifest.gaps) == bool(session.lost or session.dropped)
    assert manifest.end == ("aborted" if session.end else "final")


def test_a_seal_made_again_is_the_same_to_the_byte() -> None:
    """Breaks: a crash while sealing leaves two manifests under one number."""
    first, again = RecordedSession(), RecordedSession()
    # A part key and its sealing are the host's chance: the recording is one, the seal is made twice.
    again.recorded, again.stored, again.ended = first.recorded, first.stored, first.ended
    assert first.seal()[1] == again.seal()[1]
    assert first.seal()[1] == first.seal()[1]


def test_what_comes_after_seal_started_changes_no_byte() -> None:
    """Breaks: an error and a recovery while sealing change what was signed."""
    session = RecordedSession()
    wanted = session.seal()[1]
    late = session.stored[0][1].model_copy(update={"build": "other"})
    session.stored.append((10_000, late))
    assert session.seal()[1] == wanted


def test_a_loss_that_was_accepted_stands_whatever_was_stored() -> None:
    """Breaks: whether a chunk is in the manifest depends on when the seal was made."""
    session = RecordedSession(lost={1})
    wanted = session.seal()[1]
    other = RecordedSession()
    session.stored.append((50, other.stored[1][1]))
    assert session.seal()[1] == wanted


def test_nothing_is_sealed_while_a_chunk_is_missing() -> None:
    """Breaks: a manifest without a chunk, and without a gap that says so."""
    session = RecordedSession()
    session.stored.pop(1)
    with pytest.raises(Rejected) as error:
        session.material  # noqa: B018
    assert error.value.code == "seal.incomplete"


def test_a_chunk_stored_as_another_is_not_sealed() -> None:
    """Breaks: the manifest names heads that the host never signed."""
    session = RecordedSession()
    seq, stored = session.stored[1]
    entry = replace(Entry.parse(stored.entry), first_us=1).pack()
    session.stored[1] = (seq, stored.model_copy(update={"entry": entry}))
    with pytest.raises(Rejected) as error:
        session.material  # noqa: B018
    assert error.value.code == "seal.contradiction"


def test_another_signer_than_the_one_that_began_is_refused() -> None:
    """Breaks: SealStarted and manifest name two signers."""
    session = RecordedSession()
    other = Signer("x", HOST)
    with pytest.raises(Denied):
        seal(session.material, [], other)


def test_an_index_chunk_of_another_codec_build_is_used_as_it_is() -> None:
    """Breaks: a conductor of a newer version finds the old one's file and cannot finish the seal."""
    session, material = RecordedSession(), RecordedSession().material
    (chunk,) = index_chunks(material)
    ours = seal_index_chunk(material, KEYS.dek, chunk)
    raw = material.created.settings.model_copy(update={"codec": Codec.NONE})
    elsewhere = replace(material, created=material.created.model_copy(update={"settings": raw}))
    theirs = seal_index_chunk(elsewhere, KEYS.dek, chunk)
    assert theirs != ours
    assert fits(material, KEYS.dek, chunk, ours)
    assert fits(material, KEYS.dek, chunk, theirs)
    assert not fits(material, KEYS.dek, chunk, ours[:-1])
    assert not fits(material, KEYS.dek, chunk, session.files[0])
    flipped = bytearray(ours)
    flipped[-20] ^= 1
    assert not fits(material, KEYS.dek, chunk, flipped)
    assert index_entry(chunk, theirs).digest == h(theirs)


def test_rows_stand_in_the_order_of_the_format() -> None:
    """Breaks: a reader finds no picture to start from, or reads on where the rows end."""
    session = RecordedSession(lost={1})
    material = session.material
    found = [row for chunk in index_chunks(material) for row in rows(chunk.plain)]
    kinds = [type(row) for row in found]
    assert kinds[0] is Entry
    assert found[-1] == MetadataRow({})
    frames = [row for row in found if isinstance(row, KeyFrameRow)]
    assert [type(row) for row in found[-1 - len(frames) : -1]] == [KeyFrameRow] * len(frames)
    listed = [row for row in found if isinstance(row, Entry)]
    assert listed == material.entries
    assert listed[1].lost
    assert sum(kind is FragmentRow for kind in kinds) == len(session.sent)
    for frame in frames:
        entry = material.entries[frame.chunk]
        assert entry.offset <= frame.offset < entry.offset + entry.plain
    assert len(frames) == 3


def test_the_manifest_says_what_the_events_say() -> None:
    """Breaks: names, times and reasons of another session stand in the evidence."""
    session = RecordedSession(lost={1}, dropped={10}, end=True)
    manifest, envelope = session.seal()
    assert (manifest.session, manifest.uid, manifest.reason) == (NAME, session.uid, "operator")
    assert manifest.sealed_us == START_US + 2 * 10**9
    assert manifest.lifecycle.last == len(session.history)
    assert {gap.reason for gap in manifest.gaps} >= {"disk_died"}
    assert Manifest.parse(manifest.build()) == manifest
    assert manifest.signer.key == SIGNING.public
    assert h(envelope) != manifest.prev_manifest


def test_a_gap_fragment_right_behind_a_hole_names_the_host() -> None:
    """Breaks: what the host itself declared lost is laid at the platform's door."""
    manifest, _ = RecordedSession(dropped={10}, end=True).seal()
    (gap,) = [gap for gap in manifest.gaps if gap.track == 0]
    assert (gap.by, gap.reason, gap.first_seq, gap.last_seq) == (
        "host",
        "encoder_slow",
        gap.first_seq,
        gap.first_seq,
    )
    assert gap.after is not None


def test_the_history_folds_to_the_session_that_was_sealed() -> None:
    """Breaks: the stored lines and the seal disagree."""
    session = RecordedSession()
    folded = replace(session.session, last_seq=0, events=0, causes=frozenset(), state="")
    for seq, line in enumerate(session.history, 1):
        folded = evolve(folded, EVENT.validate_json(line), seq)
    assert folded == session.session
    assert gather(
        folded, session.history, session.recorded, session.stored, session.ended
    ).history_digest == h(b"".join(line + b"\n" for line in session.history))
