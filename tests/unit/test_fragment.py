import struct

import pytest

from schemas.errors import Rejected
from schemas.format import fragment as f
from schemas.format.digest import ZERO, d, h
from tests.support.evidence.format_samples import GENESIS, HOST_PUBLIC, KEYS, SETTINGS, START_US, UID, sealer


def _whole(header: f.Header, body: bytes) -> bytes:
    return header.pack() + body + bytes(64)


def _header(kind: f.Kind, body: bytes, **changes: object) -> f.Header:
    fields = {
        "kind": kind,
        "flags": 0,
        "track": 0,
        "part": 0,
        "uid": UID,
        "seq": 5,
        "time_us": START_US,
        "body_length": len(body),
        "prev_head": GENESIS,
    }
    return f.Header(**(fields | changes))


def _code(whole: bytes) -> str:
    with pytest.raises(Rejected) as caught:
        f.parse(whole)
    return caught.value.code


def test_a_header_says_the_same_after_packing_and_parsing() -> None:
    """Breaks: every recording already made."""
    header = _header(f.Kind.DATA, bytes(20), flags=1, track=1, part=3, seq=2**53 - 2, time_us=-(2**53) + 1)
    raw = header.pack()
    assert len(raw) == f.HEADER_BYTES == 96
    assert f.Header.parse(raw) == header
    assert struct.unpack_from("<q", raw, 40)[0] == -(2**53) + 1


def test_a_fragment_names_its_head_by_header_and_body() -> None:
    """Breaks: the chain; a changed body would keep its head."""
    whole = sealer().part(SETTINGS, START_US)
    made = f.parse(whole)
    assert made.body_digest == h(whole[96:-64])
    assert made.head == d("lucid v1 head", whole[:96] + made.body_digest)
    assert made.whole == whole
    assert (made.plain, made.clear) == (0, whole[96:-64])


def test_data_keeps_no_clear_body() -> None:
    """Breaks: ciphertext would be copied into every event."""
    host = sealer()
    host.part(SETTINGS, START_US)
    made = f.parse(host.data(b"12345", START_US))
    assert (made.plain, made.clear, len(made.body)) == (5, b"", 21)


@pytest.mark.parametrize(
    ("length", "code"),
    [
        (f.MAX_BODY - 1, None),
        (f.MAX_BODY, None),
        (f.MAX_BODY + 1, "fragment.size"),
        (16, None),
        (15, "fragment.length"),
        (0, "fragment.length"),
    ],
)
def test_data_is_taken_up_to_its_borders_and_no_further(length: int, code: str | None) -> None:
    """Breaks: memory on the platform, or the largest fragment of a host."""
    whole = _whole(_header(f.Kind.DATA, bytes(length)), bytes(length))
    if code is None:
        assert f.parse(whole).plain == length - 16
    else:
        assert _code(whole) == code


@pytest.mark.parametrize("length", [0, 159, f.MAX_BYTES + 1])
def test_a_wrong_whole_length_is_refused(length: int) -> None:
    """Breaks: memory, before anything is known of the sender."""
    assert _code(bytes(length)) == "fragment.size"


@pytest.mark.parametrize("change", [-1, 1])
def test_a_header_that_lies_about_its_body_is_refused(change: int) -> None:
    """Breaks: one fragment could be read in two ways."""
    whole = _whole(_header(f.Kind.DATA, bytes(20 + change)), bytes(20))
    assert _code(whole) == "fragment.length"


@pytest.mark.parametrize(
    ("at", "value", "code"),
    [
        (0, 0x4D, "fragment.magic"),
        (4, 2, "fragment.magic"),
        (5, 0, "fragment.kind"),
        (5, 9, "fragment.kind"),
        (6, 2, "fragment.flags"),
        (7, 1, "fragment.flags"),
        (8, 2, "fragment.track"),
        (9, 1, "fragment.track"),
        (10, 1, "fragment.reserved"),
        (11, 1, "fragment.reserved"),
        (38, 0x20, "fragment.range"),
        (46, 0x20, "fragment.range"),
        *((at, 1, "fragment.reserved") for at in range(52, 64)),
    ],
)
def test_a_header_with_one_wrong_byte_is_refused(at: int, value: int, code: str) -> None:
    """Breaks: bytes that mean nothing today could mean something tomorrow."""
    raw = bytearray(_whole(_header(f.Kind.DATA, bytes(20)), bytes(20)))
    raw[at] = value
    assert _code(bytes(raw)) == code


def test_no_fragment_takes_the_last_number() -> None:
    """Breaks: one fragment, and its session can neither go on nor end, for no JSON holds the next seq."""
    assert _code(_whole(_header(f.Kind.DATA, bytes(20), seq=2**53 - 1), bytes(20))) == "fragment.range"
    f.parse(_whole(_header(f.Kind.DATA, bytes(20), seq=2**53 - 2), bytes(20)))


@pytest.mark.parametrize("kind", [k for k in f.Kind if k is not f.Kind.DATA])
def test_only_data_is_a_key_frame(kind: f.Kind) -> None:
    """Breaks: a chunk could be cut where no picture begins."""
    assert _code(_whole(_header(kind, b"", flags=1), b"")) == "fragment.flags"


@pytest.mark.parametrize(
    ("kind", "changes", "code"),
    [
        (f.Kind.DATA, {"seq": 0}, "fragment.first"),
        (f.Kind.TICK, {"seq": 1, "part": 1}, "fragment.first"),
        (f.Kind.PART, {"seq": 0, "part": 1}, "fragment.part"),
        (f.Kind.PART, {"seq": 1, "part": 0}, "fragment.part"),
        (f.Kind.PART, {"seq": 1, "part": 2}, "fragment.part"),
        (f.Kind.END, {"seq": 0}, "fragment.end"),
        (f.Kind.END, {"prev_head": ZERO}, "fragment.end"),
        (f.Kind.FINAL, {"track": 1}, "fragment.track"),
    ],
)
def test_a_fragment_that_cannot_stand_where_it_says_is_refused(
    kind: f.Kind, changes: dict[str, object], code: str
) -> None:
    """Breaks: a track without a key, or an ending in the middle."""
    assert _code(_whole(_header(kind, b"", **changes), b"")) == code


@pytest.mark.parametrize(
    ("kind", "length", "code"),
    [
        (f.Kind.TICK, 1, "fragment.length"),
        (f.Kind.GAP, 4096, None),
        (f.Kind.GAP, 4097, "fragment.length"),
        (f.Kind.PAUSE, 1, "fragment.length"),
        (f.Kind.PART, 1171, "fragment.length"),
        (f.Kind.PART, 4096, None),
        (f.Kind.PART, 4097, "fragment.length"),
    ],
)
def test_clear_bodies_are_bounded(kind: f.Kind, length: int, code: str | None) -> None:
    """Breaks: events, which carry clear bodies, could grow without end."""
    place = {"seq": 1, "part": 1} if kind is f.Kind.PART else {}
    whole = _whole(_header(kind, bytes(length), **place), bytes(length))
    if code is None:
        assert len(f.parse(whole).clear) == length
    else:
        assert _code(whole) == code


def test_parsing_copies_no_body() -> None:
    """Breaks: throughput; a copy of every fragment costs as much as its digest."""
    whole = _whole(_header(f.Kind.DATA, bytes(20)), bytes(20))
    assert f.parse(whole).body.obj is whole


def test_each_thing_of_a_session_changes_its_genesis() -> None:
    """Breaks: a host's missing session could not be seen."""
    given = (UID, 0, HOST_PUBLIC, 7, ZERO, KEYS.intake_public)
    others = [
        (bytes(16), 0, HOST_PUBLIC, 7, ZERO, KEYS.intake_public),
        (UID, 1, HOST_PUBLIC, 7, ZERO, KEYS.intake_public),
        (UID, 0, bytes(32), 7, ZERO, KEYS.intake_public),
        (UID, 0, HOST_PUBLIC, 8, ZERO, KEYS.intake_public),
        (UID, 0, HOST_PUBLIC, 7, GENESIS, KEYS.intake_public),
        (UID, 0, HOST_PUBLIC, 7, ZERO, bytes(1216)),
    ]
    assert len({f.genesis(*each) for each in [given, *others]}) == 7
    assert f.session_uid(HOST_PUBLIC, 7) == UID != f.session_uid(HOST_PUBLIC, 8)
