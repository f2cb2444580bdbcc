"""Two programs that share no line agree: ours reads what the independent writer wrote, and the other way."""

import copy
import struct
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from handlers.crypto.keys import SessionKeys
from handlers.crypto.trust import open_trust
from handlers.evidence.original import original
from handlers.verify.seals import Seals, open_seals
from handlers.verify.session import verify
from infra.disk.evidence_copy import copy_at, write_copy
from schemas.errors import LucidError, outcome
from tests.support.evidence.evidence_case import Case, another, leaves, put
from tests.support.evidence.recorded_session import KEYS, RecordedSession, trust

INDEPENDENT = Path(__file__).parents[1] / "independent"


@pytest.fixture(autouse=True, scope="module")
def _importable() -> Iterator[None]:
    sys.path.insert(0, str(INDEPENDENT))
    yield
    sys.path.remove(str(INDEPENDENT))


PLANS: dict[str, dict[str, object]] = {
    "plain": {},
    "aes": {"suite": 2},
    "raw": {"codec": 0},
    "lz4": {"codec": 2},
    "brotli": {"codec": 3},
    "gzip": {"codec": 4},
    "fragments missing": {"drop": frozenset({(0, 3), (0, 4)})},
    "a hole at the end of a track": {"drop": frozenset({(1, 4)})},
    "a chunk lost": {"lose": frozenset({1})},
    "a chunk lost beside a hole": {"lose": frozenset({0}), "drop": frozenset({(0, 5), (0, 6)})},
    "two fragments for one place": {"twice": frozenset({(0, 3)})},
    "ended by the platform": {"end": "aborted"},
    "sealed three times": {"seals": 3},
    "one chunk a second": {"chunk_max_seconds": 1},
}


def test_both_refuse_a_part_number_that_is_skipped_without_a_hole(tmp_path: Path) -> None:
    """Breaks: two verifiers disagree on which recordings follow the format."""
    import writer
    import writer_host

    for drop, codes in (frozenset(), {"chain.part"}), (frozenset({(0, 10)}), set()):
        plan = writer_host.Plan(writer_host.steps(3), skip=1, drop=drop)
        folder = writer.make(plan).write(tmp_path / f"copy-{len(drop)}")
        report = verify(copy_at(folder), open_trust(writer.trust_file(), now_us=1))
        assert {finding.code for finding in report.findings} == codes


@pytest.mark.parametrize("name", PLANS)
def test_ours_finds_true_what_the_independent_writer_wrote(name: str, tmp_path: Path) -> None:
    """Breaks: evidence that follows the written format is refused, so the format is not what we say it is."""
    import writer
    import writer_host

    seconds = 8 if name == "one chunk a second" else 4
    plan = replace(writer_host.Plan(writer_host.steps(seconds)), **PLANS[name])
    made = writer.make(plan)
    folder = made.write(tmp_path / "copy")
    trusted = open_trust(writer.trust_file(), now_us=time.time_ns() // 1000)
    keys = (folder / "keys.json").read_bytes()
    evidence = copy_at(folder)
    report = verify(evidence, trusted, keys=keys)
    assert (report.findings, report.exit_code) == ([], 0)
    noted = {note.code for note in report.notes}
    assert bool(noted - {"host.gap"}) == bool({"drop", "lose", "twice", "end"} & PLANS[name].keys())
    seals = Seals()
    assert len(list(open_seals(evidence, trusted, seals))) == plan.seals
    assert seals.last is not None

    for track in (0, 1):
        told = b"".join(original(evidence, seals.last.manifest, SessionKeys(made.dek), track=track))
        kept = [chunk for chunk in made.manifest["chunks"] if chunk["track"] == track and chunk["sealed"]]
        assert len(told) == sum(chunk["plain"] for chunk in kept)
        assert plan.lose or told == made.plain[track]


def test_both_say_the_same_of_every_changed_manifest(tmp_path: Path) -> None:
    """Breaks: two verifiers disagree about one piece of evidence, and a court must choose."""
    import copy_on_disk
    import writer
    import writer_host

    plan = replace(
        writer_host.Plan(writer_host.steps()),
        drop=frozenset({(0, 5), (1, 4)}), lose=frozenset({2}), twice=frozenset({(0, 3)}), seals=2,
    )  # fmt: skip
    case = copy_on_disk.Evidence(plan, tmp_path)
    trusted = open_trust(writer.trust_file(), now_us=1)
    keys = (case.folder / "keys.json").read_bytes()
    good = copy.deepcopy(case.copy.manifest)
    for path in leaves(good):

        def change(manifest: dict[str, Any], path: tuple[Any, ...] = path) -> None:
            put(manifest, path, another)
            if path[0] != "merkle":
                copy_on_disk.mend(manifest)

        case.copy.manifest = copy.deepcopy(good)
        try:
            case.resign(change)
        except struct.error:
            continue  # it cannot even be written down
        theirs = case.read()
        try:
            ours, findings = (report := verify(copy_at(case.folder), trusted, keys=keys)).exit_code, report
        except LucidError as error:
            ours, findings = outcome(error).exit_code, error
        assert ours == theirs, (path, case.said, findings)


CASES = {
    "plain": RecordedSession,
    "aes": lambda: RecordedSession(suite=2, codec=4),
    "ended by the platform": lambda: RecordedSession(end=True),
    "fragments missing": lambda: RecordedSession(dropped={5, 6}, end=True),
    "a chunk lost": lambda: RecordedSession(lost=(1,)),
}


@pytest.mark.parametrize("name", CASES)
def test_the_independent_reader_finds_true_what_ours_wrote(name: str, tmp_path: Path) -> None:
    """Breaks: nobody but us can check our evidence."""
    import reader

    case = Case(CASES[name]())
    write_copy(case.held, tmp_path / "copy", keys=case.keys)
    (tmp_path / "trust.json").write_bytes(trust())
    out = tmp_path / "out.bin"
    code = reader.main([str(tmp_path / "copy"), "--trust", str(tmp_path / "trust.json"), "--out", str(out)])
    assert code == 0
    seals = Seals()
    list(open_seals(case.held, open_trust(trust(), now_us=1), seals))
    assert seals.last is not None
    assert out.read_bytes() == b"".join(original(case.held, seals.last.manifest, KEYS))
    assert out.read_bytes() == case.recorded.plain(0)
