import pytest

from schemas.errors import Rejected
from schemas.format.fragment_bodies import (
    EndBody,
    FinalBody,
    GapBody,
    PartBody,
    PartSettings,
    ReasonBody,
    TrackTail,
)

HEAD = bytes(range(32))
MAIN = TrackTail(id=0, last_seq=4, head=HEAD, plain=99)
EVENTS = TrackTail(id=1, last_seq=2, head=HEAD, plain=0)


def test_a_body_says_the_same_after_building_and_parsing() -> None:
    """Breaks: what a host declared would be lost."""
    for body in (
        GapBody(from_us=1, to_us=2, frames=3, reason="spool_full"),
        ReasonBody(reason="asked"),
        FinalBody(tracks=(MAIN, EVENTS)),
        EndBody(tracks=(), end="host_lost", reason="silent"),
        PartSettings(encoder="x264", reason="start"),
    ):
        assert type(body).parse(body.build()) == body


def test_a_final_body_has_this_one_text() -> None:
    """Breaks: recordings already made."""
    assert FinalBody(tracks=(MAIN,)).build() == (
        b'{"tracks":[{"head":"000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f",'
        b'"id":0,"last_seq":4,"plain":99}]}'
    )


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{}",
        b"[]",
        b"null",
        b'{"reason":"a b"}',
        b'{"reason":""}',
        b'{"reason":"a\n"}',
        b'{"reason": "a"}',
        b'{"reason":"a"}\n',
        b'{"reason":"a","x":1}',
        b'{"reason":"a","reason":"a"}',
        b'{"reason":1}',
        b'{"reason":null}',
    ],
)
def test_another_text_for_a_reason_is_refused(raw: bytes) -> None:
    """Breaks: two texts for one meaning, or personal data in the clear."""
    with pytest.raises(Rejected) as caught:
        ReasonBody.parse(raw)
    assert caught.value.code == "fragment.body"


@pytest.mark.parametrize(
    "raw",
    [
        b'{"frames":true,"from_us":1,"reason":"a","to_us":2}',
        b'{"frames":"3","from_us":1,"reason":"a","to_us":2}',
        b'{"frames":-1,"from_us":1,"reason":"a","to_us":2}',
        b'{"frames":9007199254740992,"from_us":1,"reason":"a","to_us":2}',
        b'{"frames":1.0,"from_us":1,"reason":"a","to_us":2}',
    ],
)
def test_a_number_has_one_form(raw: bytes) -> None:
    """Breaks: readers in other languages would read another number."""
    with pytest.raises(Rejected):
        GapBody.parse(raw)


@pytest.mark.parametrize("tracks", [(), (EVENTS,), (EVENTS, MAIN), (MAIN, MAIN)])
def test_a_final_names_track_0_and_each_track_once_in_order(tracks: tuple[TrackTail, ...]) -> None:
    """Breaks: an ending that leaves out the recording itself."""
    with pytest.raises(ValueError, match="track"):
        FinalBody(tracks=tracks)


def test_hex_with_capitals_or_blanks_is_refused() -> None:
    """Breaks: two texts for one head."""
    good = FinalBody(tracks=(MAIN,)).build()
    for bad in (good.replace(b"0a0b", b"0A0B"), good.replace(b"0a0b", b"0a 0b")):
        with pytest.raises(Rejected):
            FinalBody.parse(bad)


@pytest.mark.parametrize("settings_bytes", [2926, 2927])
def test_a_part_body_fills_4_kib_and_no_more(settings_bytes: int) -> None:
    """Breaks: events, which carry part fragments, could grow."""
    body = PartBody(bytes(settings_bytes), bytes(1120), bytes(48)).build()
    assert len(body) == 4096 + (settings_bytes - 2926)
    with pytest.raises(Rejected):
        PartBody.parse(body)  # zeros are no settings, and 2,927 bytes are too many


@pytest.mark.parametrize("change", [-1, 0, 1])
def test_a_part_body_of_another_length_is_refused(change: int) -> None:
    """Breaks: bytes behind the key that nobody reads."""
    text = PartSettings(encoder="x264", reason="start").build()
    body = PartBody(text, bytes(1120), bytes(48)).build()
    raw = body[:change] if change < 0 else body + bytes(change)
    if change == 0:
        assert PartBody.parse(raw).settings == text
    else:
        with pytest.raises(Rejected):
            PartBody.parse(raw)
