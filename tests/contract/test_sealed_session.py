"""A session of the installation, verified and exported where it lies; on a real server."""

import json
from pathlib import Path

import pytest

from handlers.crypto.key_file import build_key_file
from handlers.evidence.original import original, sealed_manifest
from handlers.verify.session import verify
from infra.disk.data_dir import DataDir
from infra.disk.evidence_copy import copy_at, write_copy
from infra.jetstream import Jet
from infra.keys.master import Keyring
from infra.keys.session_keys import DiskKeyFiles
from infra.keys.signers import Signers
from schemas import subjects
from schemas.errors import NotFound, RefusedByState
from schemas.events.commands import CompleteSeal
from schemas.format import dsse
from streams.event_store import topology
from streams.event_store.host_log import HostLog
from streams.evidence.sealed_session import GuardedEvidence, keys_file, load_sealed, open_keys
from streams.evidence.trust import own_trust
from tests.support.evidence.evidence_case import Case
from tests.support.evidence.recorded_session import (
    HOST_PUBLIC,
    KEYS,
    NAME,
    SIGNING,
    START_US,
    RecordedSession,
)


@pytest.fixture
def data(tmp_path: Path) -> DataDir:
    data = DataDir(tmp_path / "data")
    data.keys.mkdir(parents=True)
    (data.keys / "signer.json").write_text(json.dumps({"name": "signer-1", "seed": (b"s" * 32).hex()}))
    assert Signers(data.keys).at(0).public == SIGNING.public
    return data


async def install(jet: Jet, data: DataDir, *, sealed: bool = True) -> Case:
    """Put a sealed session where an installation has it."""
    await topology.declare(jet, 1 << 30)
    case = Case(RecordedSession(fragments=6))
    recorded = case.recorded
    if sealed:
        complete_seal(case)
    seq = 0
    for line in recorded.history:
        seq = await jet.append(subjects.lifecycle(NAME), line, seq)
    version, master = Keyring(data.keys).begin()
    key_files(data).make(recorded.uid, build_key_file(master, version, recorded.uid, KEYS.dek))
    await HostLog(jet).register("host-1", HOST_PUBLIC, START_US, "tester")
    name = recorded.uid.hex()
    (data.manifests / name).mkdir()
    (data.chunks / name).mkdir()
    (data.manifests / name / "1").write_bytes(case.held.manifests[1])
    for index, sealed_chunk in case.held.chunks.items():
        (data.chunks / name / f"{index:010}").write_bytes(sealed_chunk)
    return case


def key_files(data: DataDir) -> DiskKeyFiles:
    return DiskKeyFiles(data.keys / "sessions")


def complete_seal(case: Case) -> None:
    manifest = sealed_manifest(case.held)
    case.recorded.do(
        CompleteSeal,
        seal_no=1,
        manifest=dsse.parse(case.held.manifests[1], dsse.MANIFEST).digest.hex(),
        root=manifest.merkle.root.hex(),
        chunks=manifest.merkle.tree_size,
        plain=manifest.totals.plain,
        sealed=manifest.totals.sealed,
    )


async def test_a_session_is_true_where_it_lies_and_as_a_copy(jet: Jet, data: DataDir, tmp_path: Path) -> None:
    """Breaks: an installation cannot check its own store, or exports something else than it has."""
    case = await install(jet, data)
    found = await load_sealed(jet, data, NAME)
    trust = await own_trust(jet, Signers(data.keys))
    keys = (await open_keys(key_files(data), Keyring(data.keys), found.session)).keys
    raw = keys_file(found.session, keys)
    report = verify(found.evidence, trust, keys=raw)
    assert (report.findings, {note.code for note in report.notes}, report.exit_code) == ([], {"host.gap"}, 0)
    assert report.summary.history_uncovered == 1

    write_copy(found.evidence, tmp_path / "copy", keys=raw)
    assert verify(copy_at(tmp_path / "copy"), trust, keys=raw).exit_code == 0
    manifest = sealed_manifest(found.evidence)
    assert b"".join(original(found.evidence, manifest, keys)) == case.recorded.plain(0)


async def test_what_is_not_sealed_is_not_evidence(jet: Jet, data: DataDir) -> None:
    """Breaks: half a session is verified or handed out as a whole one."""
    await install(jet, data, sealed=False)
    with pytest.raises(RefusedByState, match=r"evidence\.unsealed"):
        await load_sealed(jet, data, NAME)
    with pytest.raises(NotFound, match=r"session\.absent"):
        await load_sealed(jet, data, "demo-99")


async def test_a_fenced_key_opens_nothing(jet: Jet, data: DataDir) -> None:
    """Breaks: a session that was destroyed can still be watched."""
    case = await install(jet, data)
    key_files(data).erase(case.recorded.uid)
    found = await load_sealed(jet, data, NAME)
    with pytest.raises(RefusedByState, match=r"evidence\.destroyed"):
        await open_keys(key_files(data), Keyring(data.keys), found.session)


async def test_a_verification_or_an_export_ends_where_its_session_is_destroyed(
    jet: Jet, data: DataDir, tmp_path: Path
) -> None:
    """Breaks: an export that began before a session was destroyed writes the whole film afterwards."""
    case = await install(jet, data)
    found = await load_sealed(jet, data, NAME)
    held = await open_keys(key_files(data), Keyring(data.keys), found.session)
    evidence = GuardedEvidence(found.evidence, held)
    pieces = original(evidence, sealed_manifest(evidence), held.keys)
    assert next(pieces)
    rotated = build_key_file(bytes(32), 2, case.recorded.uid, KEYS.dek)
    assert key_files(data).replace(case.recorded.uid, lambda raw: rotated)
    assert evidence.chunk(0, 1 << 20), "a rotation ends nothing"
    key_files(data).erase(case.recorded.uid)
    with pytest.raises(RefusedByState, match=r"keys\.shredded"):
        list(pieces)
    with pytest.raises(RefusedByState, match=r"keys\.shredded"):
        verify(evidence, await own_trust(jet, Signers(data.keys)), keys=keys_file(found.session, held.keys))


async def test_a_data_directory_without_a_signer_vouches_for_nobody(jet: Jet, tmp_path: Path) -> None:
    """Breaks: asking in the wrong directory makes a second root key, and a trust file that fits nothing."""
    await topology.declare(jet, 1 << 30)
    empty = DataDir(tmp_path / "empty")
    with pytest.raises(NotFound, match=r"keys\.no_signer"):
        await own_trust(jet, Signers(empty.keys))
    assert not empty.keys.exists()
