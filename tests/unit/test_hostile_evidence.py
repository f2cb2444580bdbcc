"""Evidence that was restructured and signed again ends in a verdict, in the same one for both verifiers."""

import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.evidence.evidence_case import Case
from tests.support.evidence.hostile_drafts import Draft, drafts
from tests.support.evidence.hostile_evidence import attack
from tests.support.evidence.hostile_verdicts import Reader, judge, ours
from tests.support.evidence.recorded_session import RecordedSession

SEEDS, SHARDS = 800, 4
INDEPENDENT = Path(__file__).parents[1] / "independent"


@pytest.fixture(scope="module")
def bases() -> dict[str, Draft]:
    return drafts()


@pytest.fixture(scope="module")
def reader() -> Iterator[Reader]:
    with pytest.MonkeyPatch.context() as patched:
        patched.syspath_prepend(str(INDEPENDENT))
        reader = Reader(importlib.import_module("reader"))
    yield reader
    reader.close()


def test_every_base_is_true_to_both(bases: dict[str, Draft], reader: Reader) -> None:
    """Breaks: attacks begin at something that is false anyway, and prove nothing."""
    for name, base in bases.items():
        assert (ours(base)[0], reader.read(base)) == (0, 0), name
        assert judge(base, base, reader) == ""


@pytest.mark.parametrize("shard", range(SHARDS))
def test_no_attack_crashes_or_is_called_true(shard: int, bases: dict[str, Draft], reader: Reader) -> None:
    """Breaks: an insider stops every verifier, or gets the word true for what no host signed.

    More of them: just fuzz.
    """
    wrong = {}
    for seed in range(shard, SEEDS, SHARDS):
        name, draft = attack(seed, bases)
        told = judge(bases[name], draft, reader)
        if told:
            wrong[seed, name] = told
    assert wrong == {}


def test_a_listed_track_without_chunks_is_a_finding() -> None:
    """Breaks: one changed digit ends verify with a stack trace, and no verdict."""
    case = Case(RecordedSession(fragments=2, end=True))
    tracks = [{"id": track, "genesis": "00" * 32} for track in (0, 1)]
    for chunks in ([], [chunk for chunk in case.manifest["chunks"] if chunk["track"] == 0]):
        other = case.again()
        other.resign(lambda manifest, chunks=chunks: manifest.update(chunks=chunks, tracks=tracks))
        for keys in (True, False):
            found = other.codes(keys=keys)
            assert "verify.internal" not in found
            assert found


def test_what_a_check_raises_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks: one fault of ours in one check leaves everybody without a verdict."""

    def breaks(*_: object) -> None:
        raise KeyError("x\x1b[2J")

    for place in ("check_totals", "check_files", "check_history", "check_rows"):
        with monkeypatch.context() as patched:
            patched.setattr(f"handlers.verify.session.{place}", breaks)
            (found,) = Case(RecordedSession(fragments=2)).verify().findings
        assert found.code == "verify.internal"
        assert "KeyError" in found.message
        assert found.message.isprintable()
