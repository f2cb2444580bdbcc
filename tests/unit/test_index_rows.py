from dataclasses import replace

import pytest

from handlers.format.merkle_tree import leaf
from schemas.errors import EvidenceFalse
from schemas.format import index as i
from schemas.format.digest import ZERO, h
from schemas.format.fragment import Kind, parse
from tests.support.evidence.format_samples import SETTINGS, START_US, UID, sealer

ENTRY = i.Entry(
    3,
    1,
    2,
    4000,
    1000,
    1044,
    START_US,
    START_US + 5,
    7,
    9,
    bytes(range(32)),
    bytes(range(32, 64)),
    h(b"file"),
)
INDEX = i.Entry(4, i.INDEX_TRACK, 0, 0, 100, 200, 0, 0, 0, 0, ZERO, ZERO, h(b"index"))


def test_an_entry_says_the_same_after_packing_and_parsing() -> None:
    """Breaks: every leaf already signed."""
    for entry in (ENTRY, INDEX, replace(ENTRY, sealed=0, digest=ZERO)):
        assert len(entry.pack()) == 158
        assert i.Entry.parse(entry.pack()) == entry
    assert leaf(ENTRY.pack()) == h(b"\0" + ENTRY.pack())


@pytest.mark.parametrize(
    "entry",
    [
        replace(ENTRY, sealed=0),
        replace(ENTRY, digest=ZERO),
        replace(ENTRY, sealed=143),
        replace(ENTRY, sealed=1145),
        replace(ENTRY, plain=(16 << 20) + 1),
        replace(ENTRY, index=2**53),
        replace(ENTRY, last_us=2**53),
        replace(ENTRY, first_seq=10),
        replace(ENTRY, track=2),
        replace(INDEX, part=1),
        replace(INDEX, last_us=1),
        replace(INDEX, prev_head=bytes(range(32))),
        replace(INDEX, sealed=0, digest=ZERO),
    ],
)
def test_an_entry_whose_numbers_do_not_fit_is_refused(entry: i.Entry) -> None:
    """Breaks: a lost chunk could pass as a stored one."""
    with pytest.raises(EvidenceFalse) as caught:
        i.Entry.parse(entry.pack())
    assert caught.value.code == "index.entry"


def test_a_row_gives_back_the_header_of_its_fragment() -> None:
    """Breaks: nobody could recompute the heads that the host signed."""
    host = sealer()
    made = [
        parse(host.part(SETTINGS, START_US)),
        parse(host.data(b"abc", START_US + 1, key_frame=True)),
        parse(host.tick(START_US + 2)),
        parse(host.pause("asked", START_US + 3)),
    ]
    packed = b"".join(i.FragmentRow.of(fragment).pack() for fragment in made)
    prev = made[0].header.prev_head
    for fragment, row in zip(made, i.fragment_rows(packed), strict=True):
        assert row.header(UID, 0, 0, fragment.header.seq, prev).pack() == fragment.raw_header
        assert (row.signature, row.body_digest) == (fragment.signature, fragment.body_digest)
        prev = fragment.head


def test_rows_of_every_type_read_back_in_order() -> None:
    """Breaks: nobody could find a moment in a recording."""
    fragment = i.FragmentRow(Kind.TICK, 0, START_US, 0, h(b""), bytes(64), b"")
    wanted = [ENTRY, fragment, i.KeyFrameRow(0, START_US, 1, 2), i.MetadataRow({"user": "Ömer"})]
    raw = b"".join(i.pack_row(row) for row in wanted)
    assert list(i.rows(raw)) == wanted
    with pytest.raises(EvidenceFalse):
        i.fragment_rows(raw)


@pytest.mark.parametrize(
    "raw",
    [
        b"\0",
        bytes(4),
        b"\x01\0\0\0\x05",
        b"\x02\0\0\0\x01",
        b"\xff\xff\xff\xff\x01",
        i.pack_row(ENTRY)[:-1],
        i.pack_row(ENTRY) + b"\0",
        i._row(2, bytes(111 - 4)),
        i._row(3, bytes(25)),
        i._row(4, b"[]"),
        i._row(4, b'{"b":1,"a":1}'),
        i._row(2, bytes((9,)) + i.FragmentRow(Kind.TICK, 0, 0, 0, h(b""), bytes(64), b"").pack()[6:]),
        i.FragmentRow(Kind.TICK, 0, 0, 5, h(b""), bytes(64), b"").pack(),
        i.FragmentRow(Kind.TICK, 1, 0, 0, h(b""), bytes(64), b"").pack(),
        i.FragmentRow(Kind.PAUSE, 0, 0, 0, h(b"x"), bytes(64), b"y").pack(),
        i.FragmentRow(Kind.DATA, 0, 0, 1, h(b"x"), bytes(64), b"y").pack(),
        i.FragmentRow(Kind.DATA, 0, 0, 1 << 20, h(b"x"), bytes(64), b"").pack(),
        i.FragmentRow(Kind.GAP, 0, 0, 0, h(bytes(4097)), bytes(64), bytes(4097)).pack(),
        i.KeyFrameRow(2, 0, 0, 0).pack(),
        i.KeyFrameRow(0, 0, 2**53, 0).pack(),
    ],
)
def test_a_row_that_does_not_fit_is_refused(raw: bytes) -> None:
    """Breaks: one file could be read in two ways."""
    with pytest.raises(EvidenceFalse):
        list(i.rows(raw))


@pytest.mark.parametrize("over", [-1, 0, 1])
def test_an_index_chunk_is_never_above_8_mib(over: int) -> None:
    """Breaks: what is opened to find a moment would not fit memory."""
    half = i.MAX_INDEX_PLAIN // 2
    cut = list(i.cut([bytes(half), bytes(half + over), b"z"]))
    assert b"".join(cut) == bytes(half) + bytes(half + over) + b"z"
    assert max(len(chunk) for chunk in cut) <= i.MAX_INDEX_PLAIN
    assert len(cut) == (1 if over == -1 else 2)


def test_no_rows_make_no_index_chunk() -> None:
    """Breaks: an empty chunk would be sealed."""
    assert list(i.cut([])) == []
