"""Who signs for the installation, and when; on a real file system."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from handlers.crypto.signatures import verify_signature
from infra.blobs.disk import DiskBlobs
from infra.keys.signers import OVERLAP_US, Signers
from schemas.errors import Misuse, NotFound, RefusedByState, Unavailable, Unreadable
from schemas.events.session import DestroyOrdered
from schemas.format import dsse
from schemas.format.file_names import tombstone_name
from schemas.format.manifest import Manifest
from schemas.format.trust import Tombstone
from streams.evidence.evidence_store import EvidenceStore
from streams.evidence.sealing import Sealer
from streams.retention.shredding import Shredder
from tests.support.evidence.recorded_session import KEYS, SIGNING, RecordedSession

ROTATED_US = 2_000_000_000_000_000


@pytest.fixture
def signers(tmp_path: Path) -> Signers:
    """An installation whose signer is the one of recorded_session."""
    (tmp_path / "signer.json").write_text(json.dumps({"name": SIGNING.name, "seed": (b"s" * 32).hex()}))
    return Signers(tmp_path)


def test_the_signer_of_a_date_signs_what_bears_it(signers: Signers) -> None:
    """Breaks: a seal names a signer whom the trust file does not list for its time."""
    new = signers.rotate(ROTATED_US)
    assert [signers.at(at).name for at in (0, ROTATED_US - 1)] == [SIGNING.name] * 2
    assert [signers.at(at).name for at in (ROTATED_US, ROTATED_US * 2)] == [new.name] * 2
    old, held = signers.held()
    assert (old.from_us, old.until_us, old.revoked_us) == (0, ROTATED_US + OVERLAP_US, 0)
    assert (held.from_us, held.until_us, held.revoked_us) == (ROTATED_US, 0, 0)
    assert [signers.of(one.fingerprint).name for one in (SIGNING, new)] == [SIGNING.name, new.name]
    assert Signers(signers.directory).public_keys() == [SIGNING.public, new.public], "another process sees it"


def test_a_rotation_follows_the_one_before_whatever_the_clock_says(signers: Signers) -> None:
    """Breaks: after the clock was set back, a rotation brings the old signer back."""
    names = [signers.rotate(ROTATED_US - number).name for number in range(3)]
    assert [one.name for one in signers.held()] == [SIGNING.name, *names]
    assert signers.at(2 * ROTATED_US).name == names[-1]


def test_a_revoked_signer_signs_nothing_more(signers: Signers) -> None:
    """Breaks: what is made after a theft counts for nothing, as it bears a date before it."""
    stolen = signers.rotate(ROTATED_US)
    with pytest.raises(Misuse, match=r"keys\.in_use"):
        signers.revoke(stolen.name, 5)
    newest = signers.rotate(ROTATED_US + 9 * OVERLAP_US)
    assert signers.revoke(stolen.name, 5).revoked_us == signers.revoke(stolen.name, 5).revoked_us == 5
    assert signers.at(ROTATED_US + 1).name == newest.name
    assert signers.at(0).name == SIGNING.name, "it counts for what it signed while it did"
    with pytest.raises(RefusedByState, match=r"keys\.revoked"):
        signers.revoke(stolen.name, 6)
    with pytest.raises(NotFound, match=r"keys\.signer"):
        signers.revoke("nobody", 5)


def test_a_root_that_was_taken_away_is_never_made_anew_unasked(tmp_path: Path) -> None:
    """Breaks: an installation vouches for itself under a new root, and no verifier believes it any more."""
    signers, offline = Signers(tmp_path / "keys"), tmp_path / "offline.json"
    signers.begin()
    first = signers.at(0)
    root = signers.root()
    with pytest.raises(RefusedByState, match=r"keys\.root"):
        signers.new_root()
    shutil.move(tmp_path / "keys" / "root.json", offline)
    with pytest.raises(NotFound, match=r"keys\.root") as refused:
        signers.root()
    assert "--root-key FILE" in refused.value.hint
    assert not (tmp_path / "keys" / "root.json").exists()
    assert signers.root(offline).public == root.public
    assert signers.at(5).name == first.name, "who signs manifests needs no root"
    assert signers.rotate(5).name != first.name
    assert signers.new_root().public != root.public, "it was asked for"


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"name": "root-1"}', '{"name": "root-1", "seed": "00"}'])
def test_what_is_no_root_key_signs_no_trust_file(tmp_path: Path, text: str) -> None:
    """Breaks: a signer signs the file that lists signers, or a wrong path ends in a traceback."""
    signers = Signers(tmp_path)
    signers.begin()
    with pytest.raises(Misuse):
        signers.root(tmp_path / "signer.json")
    (tmp_path / "root.json").write_text(text)
    with pytest.raises((Misuse, Unavailable)):
        signers.root()


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("signer-00000002.json", '{"name": "signer-x", "seed": "' + "00" * 32 + '", "from_us": "5"}'),
        (f"revoked-{SIGNING.name}.json", f'{{"name": "{SIGNING.name}"}}'),
    ],
)
def test_a_damaged_key_file_is_named(signers: Signers, file: str, text: str) -> None:
    """Breaks: after a restore that went wrong nobody learns which file it is."""
    (signers.directory / file).write_text(text)
    with pytest.raises(Unavailable, match=file):
        signers.held()


def test_a_root_key_that_cannot_be_read_is_no_bug(signers: Signers, tmp_path: Path) -> None:
    """Breaks: a folder given for the key file ends in a traceback."""
    with pytest.raises(Unreadable, match=r"keys\.unreadable"):
        signers.root(tmp_path)


def test_a_seal_that_was_begun_before_a_rotation_ends_as_it_was_begun(signers: Signers) -> None:
    """Breaks: a rotation stops every session that is being sealed."""
    session = RecordedSession(fragments=6)
    signers.rotate(ROTATED_US)
    chunks, manifests = DiskBlobs(signers.directory / "c"), DiskBlobs(signers.directory / "m")
    nothing: Any = None
    sealer = Sealer(nothing, nothing, nothing, EvidenceStore(chunks, manifests, nothing), signers)
    sealer._seal(session.material, KEYS.dek)
    sealer._seal(session.material, KEYS.dek)
    raw = manifests.read(f"{session.uid.hex()}/1")
    assert raw is not None
    assert Manifest.within(dsse.parse(raw, dsse.MANIFEST)).signer.key == SIGNING.public


def test_a_tombstone_of_before_a_theft_counts(signers: Signers) -> None:
    """Breaks: that a session was destroyed can be shown to nobody."""
    session = RecordedSession(fragments=6)
    stolen = signers.rotate(ROTATED_US)
    newest = signers.rotate(ROTATED_US + OVERLAP_US)
    signers.revoke(stolen.name, ROTATED_US + 1)
    manifests = DiskBlobs(signers.directory / "m")
    nothing: Any = None
    shredder = Shredder(nothing, nothing, EvidenceStore(nothing, manifests, nothing), signers, nothing)
    order = DestroyOrdered(
        session="demo-01", at_us=ROTATED_US + 5, who="a", cause="c", trigger="CLEANUP", from_state="STOPPED",
        to_state="CLEANUP", approver="b", backups_until_us=0,
    )  # fmt: skip
    destroyed: Any = SimpleNamespace(key_id=KEYS.dek_id, seals=[])
    shredder._put_tombstone(destroyed, session.material.created, order, "overwritten", [])
    raw = manifests.read(tombstone_name(session.uid))
    assert raw is not None
    envelope = dsse.parse(raw, dsse.TOMBSTONE)
    assert verify_signature(newest.public, envelope.signed, envelope.sig)
    assert Tombstone.within(envelope).at_us == newest.from_us
