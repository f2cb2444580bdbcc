"""The audit chain, pure: linked entries follow each other, and no change of a copy goes unseen."""

import json
import re
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers.audit.chain import STEP_BACK_US, Walk, chain_time, link
from handlers.audit.signed_head import check_head, signed_entries
from handlers.crypto.trust import Trust
from schemas.errors import EvidenceFalse
from schemas.events.audit import (
    MAX_ENTRY_BYTES,
    TEXT_CHARS,
    WHO_CHARS,
    WORD_CHARS,
    Act,
    Head,
    plain_text,
    plain_word,
    read_entry,
)
from schemas.format.jcs import jcs
from schemas.format.trust import TrustKey
from tests.support.evidence.audit_acts import act

HOUR_US = 3600 * 10**6


def chain(count: int) -> list[bytes]:
    lines: list[bytes] = []
    head = Head()
    for number in range(count):
        some, head = link([act(number)], head, 1000 + number)
        lines += some
    return lines


def found(lines: list[bytes], signed: dict[int, set[bytes]] | None = None) -> list[str]:
    walk = Walk(signed=signed or {})
    for line in lines:
        walk.take(line)
    walk.end()
    return [finding.code for finding in walk.findings]


def test_what_was_linked_is_a_chain() -> None:
    """Breaks: a whole chain is reported as false, and nobody believes the next report."""
    assert found(chain(20)) == []
    assert found([]) == []


@given(st.integers(0, 19), st.data())
def test_a_changed_entry_is_found(at: int, data: st.DataObject) -> None:
    """Breaks: an insider changes who looked at a recording."""
    lines = chain(20)
    member = data.draw(st.sampled_from(("who", "action", "reason", "session", "outcome", "detail", "at_us")))
    fields = json.loads(lines[at])
    fields[member] = 5 if member == "at_us" else "refused" if member == "outcome" else "mallory"
    lines[at] = jcs(fields)
    if at < 19 or member == "at_us":
        assert found(lines) != []
    head = Walk()
    for line in chain(20):
        head.take(line)
    assert found(lines, {20: {head.head.digest}}) != []


@given(st.integers(0, 19), st.integers(0, 19))
def test_a_missing_a_doubled_and_a_moved_entry_is_found(at: int, to: int) -> None:
    """Breaks: the one entry that mattered is taken out."""
    whole = chain(20)
    if at < 19:
        assert found(whole[:at] + whole[at + 1 :])[:1] == ["audit.hole"]
    assert found([*whole[: to + 1], whole[at], *whole[to + 1 :]]) != [] or at == to + 1
    if at != to:
        swapped = list(whole)
        swapped[at], swapped[to] = swapped[to], swapped[at]
        assert found(swapped) != []


@given(st.integers(0, 19), st.data())
def test_a_flipped_bit_is_found(at: int, data: st.DataObject) -> None:
    """Breaks: a damaged copy passes."""
    lines = chain(21)
    bit = data.draw(st.integers(0, len(lines[at]) * 8 - 1))
    changed = bytearray(lines[at])
    changed[bit // 8] ^= 1 << bit % 8
    lines[at] = bytes(changed)
    assert found(lines) != []


def test_two_entries_of_one_number_are_a_fork() -> None:
    """Breaks: two processes each have a history of their own, and a copy shows whichever suits."""
    one, head = link([act(1)], Head(), 1)
    left, _ = link([act(2)], head, 2)
    right, _ = link([act(3)], head, 3)
    assert found(one + left + right) == ["audit.fork"]


def test_a_signed_head_finds_a_cut_end_and_another_history() -> None:
    """Breaks: the newest entries are cut off, or all of them written anew, and the copy still verifies."""
    whole, other = chain(9), []
    head = Head()
    for number in range(9):
        some, head = link([act(number, who="mallory")], head, 1000 + number)
        other += some
    walk = Walk()
    for line in whole:
        walk.take(line)
    signed = {9: {walk.head.digest}}
    assert found(whole, signed) == []
    assert found(whole[:8], signed) == ["audit.cut"]
    assert found(other, signed) == ["audit.head"]


def test_a_line_that_is_no_entry_is_one_finding_and_the_rest_is_still_checked() -> None:
    """Breaks: one line of garbage hides every change behind it."""
    lines, head = chain(3), Walk()
    for line in [*lines, b"garbage"]:
        head.take(line)
    more, _ = link([act(7), act(8)], head.head, 2000)
    assert found([*lines, b"garbage", *more]) == ["audit.form"]
    assert found([*lines, b"garbage", more[0].replace(b"alice", b"mallo"), more[1]]) == [
        "audit.form",
        "audit.chain",
    ]


@given(st.lists(st.integers(-10 * HOUR_US, 10 * HOUR_US), min_size=1, max_size=40))
def test_the_time_of_the_chain_never_goes_back(steps: list[int]) -> None:
    """Breaks: a clock is set back, and a grant that had ended begins again."""
    at_us, head, times = 10**15, Head(), []
    for number, step in enumerate(steps):
        at_us += step
        _, head = link([act(number)], head, at_us)
        times.append((at_us, head.time_us))
    assert all(before[1] <= after[1] for before, after in pairwise(times))
    for (clock, time), (next_clock, next_time) in pairwise(times):
        # at least the step of a clock that goes on, but for small steps back that are made up first
        assert next_time - time >= next_clock - clock - STEP_BACK_US


def test_two_clocks_that_differ_a_little_do_not_hurry_the_time() -> None:
    """Breaks: two machines write in turn, and grants end within minutes."""
    head = Head()
    for number in range(1000):
        _, head = link([act(number)], head, 10**15 + number * 1000 + number % 2 * 2_000_000)
    assert head.time_us <= 10**15 + 1_000_000 + 2_000_000
    assert head.set_back_us == 0


def test_a_clock_set_back_an_hour_gives_no_hour_more() -> None:
    """Breaks: a period of an hour takes two."""
    _, head = link([act(1)], Head(), 10**15)
    _, head = link([act(2)], head, 10**15 + HOUR_US)
    _, head = link([act(3)], head, 10**15 + 5)
    assert chain_time(head, 10**15 + HOUR_US)[0] == 10**15 + 2 * HOUR_US - 5


def test_an_entry_of_the_longest_texts_is_read_back() -> None:
    """Breaks: a long reason is accepted and then cannot be read."""
    wide = "\U0001f600"
    long = act(
        1, who=wide * WHO_CHARS, reason=wide * TEXT_CHARS, detail=wide * TEXT_CHARS, code="c" * WORD_CHARS
    )
    lines, _ = link([long.model_copy(update={"session": "s" * WORD_CHARS})], Head(), 1)
    assert len(lines[0]) < MAX_ENTRY_BYTES
    assert read_entry(lines[0]).reason == wide * TEXT_CHARS


@given(st.text())
def test_any_text_of_a_caller_becomes_one_line(text: str) -> None:
    """Breaks: a reason with a line end forges an entry, or stops the whole log."""
    entry = Act(
        id=bytes(16), phase="asked", who=plain_text(text, WHO_CHARS), action=plain_word(text),
        reason=plain_text(text), address=plain_word(text),
    )  # fmt: skip
    lines, _ = link([entry], Head(), 1)
    assert b"\n" not in lines[0]
    assert found(lines) == []


def test_a_member_of_a_newer_writer_is_covered_and_ignored() -> None:
    """Breaks: an older reader cannot check the chain of a newer installation."""
    first, _ = link([act(1)], Head(), 1)
    newer = jcs(json.loads(first[0]) | {"device": "laptop-7"})
    walk = Walk()
    walk.take(newer)
    second, _ = link([act(2)], walk.head, 2)
    assert found([newer, *second]) == []
    assert found([newer.replace(b"laptop-7", b"laptop-8"), *second]) == ["audit.chain"]


def test_an_oversized_line_is_refused() -> None:
    """Breaks: a hostile copy fills the memory of its reader."""
    with pytest.raises(EvidenceFalse, match="allowed"):
        read_entry(b"x" * (MAX_ENTRY_BYTES + 1))


def test_the_documented_chain_is_ours() -> None:
    """Breaks: the page describes another chain than the one that is written."""
    page = (Path(__file__).parents[2] / "docs" / "format.md").read_text()
    blocks = dict(re.findall(r"```text (audit-[a-z0-9]+)\n(.*?)```", page, re.DOTALL))
    lines = [blocks[name].replace("\n", "").encode() for name in ("audit-1", "audit-2")]
    made, head = [], Head()
    for line in lines:
        entry = read_entry(line)
        some, head = link(
            [Act.model_validate(entry.model_dump(include=set(Act.model_fields)))], head, entry.at_us
        )
        made += some
    assert made == lines
    envelope = blocks["audit-head"].replace("\n", "").encode()
    (signer,) = (bytes.fromhex(found[1]) for found in re.finditer(r"```hex signer-key\n(\w+)\n", page))
    key = TrustKey(key=signer, role="signer", name="signer", from_us=0, until_us=2**52, revoked_us=0)
    trust = Trust(b"", 0, (key,))
    checked = check_head(envelope, trust)
    assert checked.listed
    assert found(lines, signed_entries([checked.head])) == []
    with pytest.raises(EvidenceFalse):
        check_head(envelope.replace(b'payload":"e', b'payload":"f'), trust)
    assert not check_head(envelope, None).listed
