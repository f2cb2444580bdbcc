"""Changed evidence is called false, by whomever it was changed, and never ends in a traceback."""

from __future__ import annotations

import contextlib
import copy
import os
import random
import struct
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import reader_shapes as shapes
from copy_on_disk import Evidence, mend
from reader_bytes import DATA, PART, Bad
from reader_keyed import open_chunk
from writer_host import Plan, secret, steps

Write = Callable[[Plan], Evidence]
TINY = Plan(steps(1, 900), codec=0)
LOSSY = Plan(
    steps(), drop=frozenset({(0, 5), (1, 4)}), lose=frozenset({2}), twice=frozenset({(0, 3)}), seals=2
)


def test_a_flip_at_any_place_of_the_manifest_is_found(evidence: Write) -> None:
    """Breaks: a signed manifest can be changed without anybody noticing."""
    case = evidence(Plan(steps(1, 900)[:1]))
    name = "manifests/1.dsse.json"
    good = case.file(name).read_bytes()
    key_of: Callable[[Any], str] = lambda value: value["signer"]["key"]  # noqa: E731
    for place in range(len(good)):
        broken = bytearray(good)
        broken[place] ^= 1 << place % 8
        with pytest.raises(Bad):
            shapes.open_envelope(bytes(broken), shapes.MANIFEST_TYPE, shapes.MANIFEST, key_of, "manifest")
        if place % 101 == 0:
            case.file(name).write_bytes(broken)
            assert case.read() == 3, place


def test_a_flip_of_any_chunk_byte_is_found_with_and_without_keys(evidence: Write) -> None:
    """Breaks: stored bytes rot or are changed, and evidence stays true."""
    case = evidence(TINY)
    name = "chunks/0000000001"
    good = case.file(name).read_bytes()
    places = [*range(128), *random.Random(4).sample(range(128, len(good)), 200), len(good) - 1]
    for place in places:
        broken = bytearray(good)
        broken[place] ^= 1 << place % 8
        with pytest.raises(Bad):
            open_chunk(case.copy.dek, bytes(broken))
    for place in places[::9]:
        case.flip(name, place)
        assert case.read() == 3
        assert "chunk.digest" in case.codes
        case.file(name).write_bytes(good)
    assert case.read() == 0


def test_a_flip_of_any_covered_history_byte_is_found(evidence: Write) -> None:
    """Breaks: the history of a sealed session can be rewritten."""
    case = evidence(TINY)
    lines = case.file("history.ndjson").read_bytes().splitlines(keepends=True)
    for place in range(len(b"".join(lines[:-1]))):
        case.flip("history.ndjson", place)
        assert case.read(keys=False) == 3, place
        case.file("history.ndjson").write_bytes(b"".join(lines))
    case.file("history.ndjson").write_bytes(b"".join(lines[:-1]))
    assert case.read() == 0


def test_files_that_are_swapped_missing_added_or_truncated_are_found(evidence: Write) -> None:
    """Breaks: a whole piece of a recording can be exchanged or taken away."""
    first, second = "chunks/0000000000", "chunks/0000000001"

    def swap(case: Evidence) -> None:
        one, two = case.file(first).read_bytes(), case.file(second).read_bytes()
        case.file(first).write_bytes(two)
        case.file(second).write_bytes(one)

    def replace_by(kind: Callable[[str], Any]) -> Callable[[Evidence], None]:
        def change(case: Evidence) -> None:
            case.file(first).unlink()
            kind(str(case.file(first)))

        return change

    changes: dict[str, tuple[Callable[[Evidence], Any], str]] = {
        "swapped": (swap, "chunk.digest"),
        "missing": (lambda case: case.file(first).unlink(), "chunk.missing"),
        "missing index": (lambda case: case.file("chunks/0000000002").unlink(), "chunk.missing"),
        "added": (lambda case: case.file("chunks/0000000009").write_bytes(b""), "chunk.unnamed"),
        "added, odd": (lambda case: case.file("chunks/00000000001").write_bytes(b""), "chunk.unnamed"),
        "truncated": (lambda case: os.truncate(case.file(first), 200), "chunk.digest"),
        "empty": (lambda case: os.truncate(case.file(first), 0), "chunk.digest"),
        "longer": (lambda case: case.file(first).open("ab").write(b"x"), "chunk.digest"),
        "seal added": (lambda case: case.file("manifests/0.dsse.json").write_bytes(b""), "manifest.unnamed"),
        "seal copied": (
            lambda case: case.file("manifests/2.dsse.json").write_bytes(
                case.file("manifests/1.dsse.json").read_bytes()
            ),
            "manifest.seal_no",
        ),
        "no history": (lambda case: case.file("history.ndjson").unlink(), "history.missing"),
        "short history": (lambda case: os.truncate(case.file("history.ndjson"), 50), "history.line"),
    }
    for name, (change, code) in changes.items():
        case = evidence(TINY)
        change(case)
        assert case.read() == 3, name
        assert code in case.codes, (name, case.said)
        assert case.read(keys=False) == 3, name
    for kind in (os.mkdir, os.mkfifo, lambda name: os.symlink("0000000001", name)):
        case = evidence(TINY)
        replace_by(kind)(case)
        assert case.read() == 4, case.said


def test_a_part_number_may_be_skipped_in_a_hole_only(evidence: Write) -> None:
    """Breaks: record refuses what the format allows, and the host's recording waits for ever."""
    case = evidence(Plan(steps(3), skip=1))
    assert case.read(keys=False) == 3
    assert case.codes == {"chain.part"}
    assert evidence(Plan(steps(3))).read(keys=False) == 0
    before_the_second = frozenset({(0, 10)})
    assert evidence(Plan(steps(3), skip=1, drop=before_the_second)).read(keys=False) == 0


def test_a_silent_host_is_noted(evidence: Write) -> None:
    """Breaks: the two verifiers tell different things of a host that was stopped for a minute."""
    made = [(0, PART, b"start", 0), (0, DATA, b"x", 1), (0, DATA, b"y" * 850, 0)]
    for keys in (False, True):
        case = evidence(Plan(tuple(made), pace_us=85_000_000, end="aborted"))
        assert case.read(keys=keys) == 0
        assert "[host.silent]" in case.said
        assert "85.0 s" in case.said
        case = evidence(Plan(tuple(made), pace_us=19_000_000))
        assert case.read(keys=keys) == 0
        assert "host.silent" not in case.said


def test_a_manifest_of_other_bytes_is_found(evidence: Write) -> None:
    """Breaks: an old manifest vouches for new chunks, or one session's for another's."""
    case, other = evidence(TINY), evidence(Plan(steps(1, 901), codec=0))
    case.file("manifests/1.dsse.json").write_bytes(other.file("manifests/1.dsse.json").read_bytes())
    assert case.read(keys=False) == 3
    assert "chunk.digest" in case.codes


def test_a_key_that_does_not_fit_is_found(evidence: Write) -> None:
    """Breaks: the wrong key is called tampering, or crashes the reader."""
    case = evidence(TINY)
    good = shapes.parse_canonical(case.file("keys.json").read_bytes(), "keys")
    wrong: dict[str, tuple[bytes, str]] = {
        "another key": (shapes.jcs(good | {"dek": secret("no").hex()}), "keys.unfit"),
        "another session": (shapes.jcs(good | {"uid": "00" * 16}), "keys.unfit"),
        "not canonical": (shapes.jcs(good) + b"\n", "keys.json"),
        "too long": (b" " * 5000, "keys.file"),
        "no object": (b"[]", "keys.shape"),
    }
    for name, (raw, code) in wrong.items():
        case.file("keys.json").write_bytes(raw)
        assert case.read() == 6, name
        assert f"[{code}]" in case.said, name


def test_a_manifest_signed_by_a_stranger_is_exit_9(evidence: Write) -> None:
    """Breaks: whoever makes a key can seal."""
    case = evidence(Plan(steps(1), signer="stranger"))
    assert case.read() == 9
    case.flip("chunks/0000000000", 150)
    assert case.read() == 3


# What a listed signer may say without anybody being able to recompute it (docs/format.md §13).
WORD = {"started_us", "signer.name", "host.attested", "chunks[].build", "gaps[].by", "gaps[].reason"}
# What needs the data key: bound by the index chunks and the cuts, not by what stands in the manifest.
WORD_WITHOUT_KEYS = WORD | {"chunks[].first_us"}


def leaves(value: Any, path: str = "") -> Iterator[tuple[Any, Any, str]]:
    """Yield (holder, key, path) of every leaf; list positions are written as []."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, item in list(items):
        place = f"{path}[]" if isinstance(value, list) else f"{path}.{key}".lstrip(".")
        if isinstance(item, dict | list):
            yield from leaves(item, place)
        else:
            yield value, key, place


def another(value: Any, path: str) -> Any:
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value - 1 if value == 0xFFFF else value + 1
    if path == "gaps[].by":
        return "host" if value == "installation" else "installation"
    if len(value) >= 32:  # hex or base64
        place = len(value) // 2
        return value[:place] + ("1" if value[place] == "0" else "0") + value[place + 1 :]
    return value + "x"


def test_a_signer_can_lie_exactly_where_the_document_says_so(evidence: Write) -> None:
    """Breaks: something a reader takes for proven rests on one signer's word."""
    silent, unseen = set(), set()
    for plan in (LOSSY, Plan(steps(2), end="aborted"), Plan(steps(5))):
        case = evidence(plan)
        assert case.read(keys=False) == 0
        good = case.copy.manifest
        for number, (_, _, path) in enumerate(list(leaves(good))):
            lie = copy.deepcopy(good)
            holder, key, _ = list(leaves(lie))[number]
            holder[key] = another(holder[key], path)
            if not path.startswith(("merkle", "totals")):
                mend(lie)
            case.put_manifest(lie)
            code = case.read(keys=False)
            assert code in (0, 3)
            if code == 0:
                silent.add(path)
                if case.read("--keys", str(case.folder.parent / "keys.json")) == 0:
                    unseen.add(path)
    assert silent == WORD_WITHOUT_KEYS
    assert unseen == WORD


def test_a_member_less_or_more_is_refused(evidence: Write) -> None:
    """Breaks: two readers understand one manifest differently."""
    case = evidence(LOSSY)
    good = case.copy.manifest
    holders = [good, good["host"], good["chunks"][0], good["gaps"][0], good["index"][0], good["merkle"]]
    for position in range(len(holders)):
        for change in ("less", "more", "null", "float"):
            lie = copy.deepcopy(good)
            places = [lie, lie["host"], lie["chunks"][0], lie["gaps"][0], lie["index"][0], lie["merkle"]]
            holder = places[position]
            name = sorted(holder)[-1]  # never `after`, which may be absent
            if change == "less":
                del holder[name]
            else:
                holder["x" if change == "more" else name] = {"more": 1, "null": None, "float": 1.5}[change]
            case.put_manifest(lie)
            assert case.read(keys=False) == 3
            assert case.codes & {"manifest.shape", "manifest.json"}


def test_new_content_under_an_honest_head_needs_the_key_to_be_found(evidence: Write) -> None:
    """Breaks: a signer with the data key replaces what was recorded."""
    case = evidence(TINY)
    plain = bytearray(open_chunk(case.copy.dek, case.file("chunks/0000000001").read_bytes()))
    plain[7] ^= 1
    case.put_chunk(1, bytes(plain))
    assert case.read() == 3
    assert case.codes == {"chunk.content"}
    assert case.read(keys=False) == 0  # as the document says: without keys this is the signer's word


def test_any_other_row_of_the_index_is_found_with_keys(evidence: Write) -> None:
    """Breaks: a signer with the data key rewrites times, key frames or clear bodies."""
    case = evidence(replace(TINY, steps=TINY.steps[:3]))
    index = len(case.copy.manifest["chunks"])
    good = open_chunk(case.copy.dek, case.file(f"chunks/{index:010}").read_bytes())
    metadata = good.rindex(b'{"title"')
    for place in range(0, metadata, 7):
        bad = bytearray(good)
        bad[place] ^= 1 << place % 8
        case.put_chunk(index, bytes(bad))
        assert case.read() == 3, place
        assert {code.split(".")[0] for code in case.codes} <= {"index", "fragment", "part", "chunk"}
    for bad in (
        good[:-1],
        good + b"\0",
        good + good[-30:],
        good[:metadata],
        b"",
        good[163:],
        good[:163] + good,
    ):
        case.put_chunk(index, bytes(bad))
        assert case.read() == 3
    case.put_chunk(index, good.replace(b"a test", b"A TEST"))
    assert case.read() == 0, case.said


def test_chunks_cut_elsewhere_are_found_with_keys(evidence: Write) -> None:
    """Breaks: a platform that drops or merges chunks by its own rules goes unseen."""
    for change in ({"chunk_bytes": 1 << 19}, {"chunk_max_seconds": 1}):
        case = evidence(Plan(steps(6)))
        case.resign(lambda manifest, change=change: manifest["settings"].update(change))
        assert case.read() == 3
        assert case.codes == {"chunk.cut", "history.session"}


def test_random_damage_never_ends_in_a_traceback(evidence: Write) -> None:
    """Breaks: a hostile file stops the reader instead of being called false."""
    case = evidence(LOSSY)
    dice = random.Random(11)
    names = [name for name in case.copy.files if name != "history.ndjson"]
    for _ in range(150):
        name = dice.choice(names)
        good = case.file(name).read_bytes()
        start, length = dice.randrange(len(good)), dice.randrange(1, 64)
        middle = dice.choice([b"", dice.randbytes(length), b"[" * 5000, good[:length]])
        broken = good[:start] + middle + good[start + length :]
        case.file(name).write_bytes(broken)
        wanted = 6 if name == "keys.json" else 3
        assert case.read() == (wanted if broken != good else 0), name
        case.file(name).write_bytes(good)


def test_a_signers_wild_numbers_never_end_in_a_traceback(evidence: Write) -> None:
    """Breaks: a signer crashes every reader with one number."""
    case = evidence(LOSSY)
    good = case.copy.manifest
    places = {path: n for n, (holder, key, path) in enumerate(leaves(good)) if type(holder[key]) is int}
    for number in places.values():
        for wild in (0, -1, 2**31, 2**52, 2**53 - 1):
            lie = copy.deepcopy(good)
            holder, key, path = list(leaves(lie))[number]
            if holder[key] == wild:
                continue
            holder[key] = wild
            if wild < 2**53 - 1:  # above, no sum fits into JSON
                with contextlib.suppress(struct.error):  # nor does this fit into an entry
                    mend(lie)
            case.put_manifest(lie)
            told = path in WORD_WITHOUT_KEYS or path.startswith(("merkle", "totals"))  # mended again
            assert case.read() == 3 or told, path
