"""Ways to the word true for something that the host did not sign, or that nobody listed vouches for."""

import copy
import json
from typing import Any

import pytest

from schemas.events.session import SessionSettings
from schemas.format import dsse
from schemas.format.digest import h
from schemas.format.jcs import jcs
from tests.support.evidence.evidence_case import Case, signed
from tests.support.evidence.hostile_drafts import Draft, drafts
from tests.support.evidence.hostile_verdicts import ours
from tests.support.evidence.recorded_session import HOST_PUBLIC, SIGNING, RecordedSession, trust


@pytest.fixture(scope="module")
def bases() -> dict[str, Draft]:
    return drafts()


@pytest.fixture
def twice(bases: dict[str, Draft]) -> Draft:
    """A session with two seals."""
    return copy.deepcopy(bases["two seals"])


def codes(draft: Draft) -> set[str]:
    code, report = ours(draft)
    assert report is not None
    assert code == 3
    return {finding.code for finding in report.findings}


def linked(draft: Draft) -> Draft:
    """Links and digests of the history made to fit, as a signer can."""
    before = bytes(32)
    for number, manifest in enumerate(draft.manifests, 1):
        last = manifest["lifecycle"]["last"]
        started = json.loads(draft.lines[last - 1]) | {
            "seal_no": number,
            "sealed_us": manifest["sealed_us"],
            "signer": dsse.fingerprint(bytes.fromhex(manifest["signer"]["key"])).hex(),
        }
        draft.lines[last - 1] = jcs(started) + b"\n"
    for manifest in draft.manifests:
        last = manifest["lifecycle"]["last"]
        manifest["lifecycle"]["digest"] = h(b"".join(draft.lines[:last])).hex()
        manifest["prev_manifest"] = before.hex()
        before = h(signed(manifest))
    return draft


def test_what_is_linked_again_is_true(twice: Draft) -> None:
    """Breaks: the attacks below are found for a reason of their own, and prove nothing."""
    assert ours(linked(twice))[0] == 0


OTHER_SETTINGS = SessionSettings(level=7).model_dump(exclude={"threshold"})
SEALS: dict[str, tuple[dict[str, Any], str]] = {
    "another session": ({"session": "s2"}, "manifest.session"),
    "another start": ({"started_us": 5}, "manifest.session"),
    "another data key": ({"dek_id": "11" * 16}, "manifest.session"),
    "other settings": (
        {"settings": OTHER_SETTINGS},
        "manifest.session",
    ),
}


@pytest.mark.parametrize("name", SEALS)
@pytest.mark.parametrize("seal", [0, 1])
def test_two_seals_of_two_sessions_are_found(twice: Draft, name: str, seal: int) -> None:
    """Breaks: an honest first seal lends its history to another session's second, or the other way round."""
    change, code = SEALS[name]
    twice.manifests[seal] |= change
    assert code in codes(linked(twice))


def test_a_seal_that_covers_less_than_the_one_before_is_found(twice: Draft) -> None:
    """Breaks: a correction leaves out what the first seal had to cover."""
    first, second = twice.manifests
    first["lifecycle"], second["lifecycle"] = second["lifecycle"], first["lifecycle"]
    assert "manifest.link" in codes(linked(twice))


def test_a_seal_that_was_taken_away_leaves_a_note(twice: Draft) -> None:
    """Breaks: a correction disappears, and nobody hears that there was one."""
    del twice.manifests[1]
    code, report = ours(twice)
    assert report is not None
    assert (code, {note.code for note in report.notes}) == (0, {"history.later_seal", "host.gap"})


def test_a_history_of_another_session_is_found(bases: dict[str, Draft]) -> None:
    """Breaks: a session without a history borrows one."""
    draft, other = copy.deepcopy(bases["two tracks"]), bases["raw"]
    draft.lines = list(other.lines)
    draft.manifests[0]["lifecycle"]["last"] = other.manifests[0]["lifecycle"]["last"]
    assert "history.session" in codes(linked(draft))


def test_chunks_of_another_session_are_found_without_keys(bases: dict[str, Draft]) -> None:
    """Breaks: a signer puts another recording behind the heads of this one."""
    draft, other = copy.deepcopy(bases["two tracks"]), bases["raw"]
    draft.keys = None
    for index in draft.chunks.keys() & other.chunks.keys():
        sealed = draft.chunks[index] = other.chunks[index]
        listed = [*draft.manifests[0]["chunks"], *draft.manifests[0]["index"]][index]
        listed |= {"digest": h(sealed).hex(), "sealed": len(sealed)}
    assert "chunk.header" in codes(draft)


def test_who_seals_a_session_of_a_host_of_his_own_making_is_not_called_true() -> None:
    """Breaks: a signer invents a host, and a whole recording by it."""
    case = Case(RecordedSession(fragments=2, small=True))
    draft = Draft([case.manifest], case.held.lines or [], case.held.chunks, trust_of(), None)
    for keys in (
        [line("signer", SIGNING.public, "signer-1")],
        [line("signer", SIGNING.public, "signer-1"), line("host", SIGNING.public, "host-1")],
        [line("signer", SIGNING.public, "signer-1"), line("host", HOST_PUBLIC, "Host-1")],
        [line("signer", SIGNING.public, "signer-1"), line("signer", HOST_PUBLIC, "host-1")],
        [line("signer", HOST_PUBLIC, "signer-1"), line("host", HOST_PUBLIC, "host-1")],
    ):
        draft.trust["keys"] = keys
        assert ours(draft)[0] == 9
    draft.trust["keys"] = [line("signer", SIGNING.public, "x"), line("host", HOST_PUBLIC, "host-1")]
    assert ours(draft)[0] == 0


def test_overlapping_lines_of_one_key_do_not_undo_a_revocation() -> None:
    """Breaks: a stolen key counts again because an older line still lists it."""
    case = Case(RecordedSession(fragments=2, small=True))
    draft = Draft([case.manifest], case.held.lines or [], case.held.chunks, trust_of(), None)
    signer, host = line("signer", SIGNING.public, "signer-1"), line("host", HOST_PUBLIC, "host-1")
    for name, keys in {
        "signer": [signer, signer | {"revoked_us": 9, "from_us": 1, "until_us": 2}, host],
        "host": [signer, host, host | {"revoked_us": 9, "name": "another"}],
    }.items():
        draft.trust["keys"] = keys
        code, report = ours(draft)
        assert report is not None
        assert (code, report.verdict) == (9, f"{name}_unknown")


def line(role: str, key: bytes, name: str) -> dict[str, Any]:
    return {"role": role, "key": key.hex(), "name": name, "from_us": 0, "until_us": 2**52, "revoked_us": 0}


def trust_of() -> dict[str, Any]:
    value: dict[str, Any] = dsse.parse(trust(), dsse.TRUST).value
    return value
