"""Evidence that somebody without the signer's key changed is false, whatever was changed."""

import json
import random
from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from handlers.format.chunk import open_chunk
from schemas.errors import Rejected
from schemas.format import dsse
from schemas.format.chunk_header import HEADER_BYTES
from schemas.format.jcs import jcs
from tests.support.evidence.evidence_case import Case
from tests.support.evidence.recorded_session import KEYS, SIGNING, RecordedSession


@pytest.fixture(scope="module")
def true_case() -> Case:
    return Case(RecordedSession(fragments=6, codec=0))


@pytest.fixture
def case(true_case: Case) -> Case:
    return true_case.again()


def flipped(raw: bytes, place: int, bit: int) -> bytes:
    broken = bytearray(raw)
    broken[place] ^= 1 << bit
    return bytes(broken)


def biggest(case: Case) -> int:
    """Index of the data chunk with the most bytes."""
    return max(case.manifest["chunks"], key=lambda chunk: int(chunk["sealed"]))["index"]  # type: ignore[no-any-return]


def test_every_header_byte_and_200_body_bits_of_a_chunk_are_bound(case: Case) -> None:
    """Breaks: stored bytes rot or are changed, and nobody sees it."""
    big = biggest(case)
    good = case.held.chunks[big]
    places = [(at, at % 8) for at in range(HEADER_BYTES)]
    draw = random.Random(1)
    places += [(draw.randrange(HEADER_BYTES, len(good)), draw.randrange(8)) for _ in range(200)]
    for place, bit in places:
        broken = flipped(good, place, bit)
        with pytest.raises(Rejected):
            open_chunk(KEYS.dek, broken)
        case.held.chunks[big] = broken
        report = case.verify(keys=place % 2 == 0)
        assert report.exit_code == 3, place
        assert ("chunk.digest", f"chunks/{big:010}") in {(f.code, f.place) for f in report.findings}, place


def test_every_byte_of_a_manifest_is_bound() -> None:
    """Breaks: a signed manifest can be changed without anybody noticing."""
    case = Case(RecordedSession(fragments=1, codec=0))
    good = case.held.manifests[1]
    for place in range(len(good)):
        case.held.manifests[1] = flipped(good, place, place % 8)
        report = case.verify(keys=False)
        assert report.exit_code == 3, place
        found = report.findings[0]
        assert found.code in {"manifest.malformed", "manifest.signature"}, place
        assert found.place == "manifests/1.dsse.json", place


def test_another_text_of_the_same_manifest_is_refused(case: Case) -> None:
    """Breaks: one seal has many texts, so its digest no longer names it."""
    good = case.held.manifests[1]
    said = json.loads(good)
    others = {
        "a space": json.dumps(said).encode(),
        "a line end": good + b"\n",
        "another order": json.dumps(
            {"signatures": said["signatures"], **said}, separators=(",", ":")
        ).encode(),
        "two signatures": jcs(said | {"signatures": said["signatures"] * 2}),
        "no signature": jcs(said | {"signatures": []}),
        "one more member": jcs(said | {"x": 1}),
        "another type": jcs(said | {"payloadType": dsse.TRUST}),
        "url base64": good.replace(b"+", b"-"),
        "nothing": b"",
        "deep": b"[" * 100_000,
        "no json": b"\xff\xfe",
        "a long number": b'{"payload":' + b"9" * 100_000 + b"}",
    }
    for name, raw in others.items():
        case.held.manifests[1] = raw
        assert case.codes(keys=False) <= {"manifest.malformed", "manifest.missing"}, name
        assert case.verify(keys=False).exit_code == 3, name


def _swap(case: Case) -> None:
    chunks = case.held.chunks
    chunks[0], chunks[1] = chunks[1], chunks[0]


def _other(change: Callable[[Case], object]) -> Callable[[Case], None]:
    return lambda case: (change(case), None)[1]


DAMAGE: dict[str, tuple[Callable[[Case], None], str]] = {
    "swapped": (_swap, "chunk.length"),
    "missing": (_other(lambda case: case.held.chunks.pop(1)), "chunk.missing"),
    "added": (_other(lambda case: case.held.chunks.update({999: b"x"})), "chunk.unnamed"),
    "oddly named": (lambda case: setattr(case.held, "strange_chunks", ("00000000001",)), "chunk.unnamed"),
    "truncated": (_other(lambda c: c.held.chunks.update({1: c.held.chunks[1][:-1]})), "chunk.length"),
    "empty": (_other(lambda c: c.held.chunks.update({1: b""})), "chunk.length"),
    "longer": (_other(lambda c: c.held.chunks.update({1: c.held.chunks[1] + b"x"})), "chunk.length"),
    "an index chunk missing": (_other(lambda c: c.held.chunks.pop(max(c.held.chunks))), "chunk.missing"),
    "manifest gone": (_other(lambda case: case.held.manifests.clear()), "manifest.missing"),
    "manifest oddly named": (
        lambda case: setattr(case.held, "strange_manifests", ("01.dsse.json",)),
        "manifest.unnamed",
    ),
    "history gone": (lambda case: setattr(case.held, "lines", None), "history.missing"),
    "history cut": (lambda case: case.held.lines.pop(), "history.digest"),  # type: ignore[union-attr]
    "history changed": (
        lambda case: case.held.lines.__setitem__(1, jcs({"type": "Created"}) + b"\n"),  # type: ignore[union-attr]
        "history.digest",
    ),
    "history no json": (
        lambda case: case.held.lines.__setitem__(0, b"hello\n"),  # type: ignore[union-attr]
        "history.malformed",
    ),
    "history without end": (
        lambda case: case.held.lines.append(b'{"type":"x"}'),  # type: ignore[union-attr]
        "history.malformed",
    ),
}


@pytest.mark.parametrize("name", DAMAGE)
@pytest.mark.parametrize("keys", [True, False])
def test_damage_is_found_and_named(case: Case, name: str, keys: bool) -> None:
    """Breaks: a chunk, manifest or history can be exchanged, taken away or added unseen."""
    damage, code = DAMAGE[name]
    damage(case)
    report = case.verify(keys=keys)
    assert report.exit_code == 3
    assert code in {finding.code for finding in report.findings}


def test_one_bad_chunk_leaves_the_others_good(case: Case) -> None:
    """Breaks: nobody can tell which part of damaged evidence still stands."""
    big = biggest(case)
    case.held.chunks[big] = flipped(case.held.chunks[big], 500, 0)
    report = case.verify(keys=False)
    assert report.summary.chunks_good == report.summary.chunks - 1
    (finding,) = report.findings
    assert finding.sealed == case.manifest["chunks"][big]["digest"] != finding.found


def test_an_old_manifest_with_new_chunks_is_false(case: Case) -> None:
    """Breaks: chunks of one session pass under the manifest of another."""
    newer = Case(RecordedSession(fragments=7, codec=0))
    newer.held.manifests = case.held.manifests
    assert newer.verify(keys=False).exit_code == 3


def test_a_manifest_signed_by_another_key_is_not_the_installations(case: Case) -> None:
    """Breaks: whoever has any key at all can write evidence."""
    other = Ed25519PrivateKey.generate()
    public = other.public_key().public_bytes_raw()
    payload = jcs(case.manifest)
    case.held.manifests[1] = dsse.build(payload, dsse.MANIFEST, other.sign, SIGNING.public)
    assert "manifest.signature" in case.codes(keys=False)
    case.held.manifests[1] = dsse.build(payload, dsse.MANIFEST, other.sign, public)
    assert "manifest.signature" in case.codes(keys=False)
    named = case.manifest | {"signer": {"key": public.hex(), "name": "signer-1"}}
    case.held.manifests[1] = dsse.build(jcs(named), dsse.MANIFEST, other.sign, public)
    report = case.verify(keys=False)
    assert {finding.code for finding in report.findings} == {"history.seal"}
    assert not report.summary.signer_listed


def test_names_that_strangers_chose_cannot_speak_to_a_terminal(case: Case) -> None:
    """Breaks: a file name clears the screen and prints another verdict."""
    case.held.strange_chunks = ("\x1b[2Jtrue\u202e\udcff" + "x" * 500,)
    (finding,) = case.verify(keys=False).findings
    assert finding.place.isascii()
    assert finding.place.isprintable()
    assert len(finding.place) < 200
