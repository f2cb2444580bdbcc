"""Conditions and ranges of a request, by the rules of RFC 9110 §13 and §14."""

import pytest

from schemas.errors import Stale
from streams.api.conditions import Conditions, Selected, Thing

ETAG = '"a1"'
THING, GROWING, EMPTY = Thing(100, ETAG), Thing(100, ""), Thing(0, ETAG)


def told(asked: Conditions, thing: Thing = THING) -> tuple[int, str, str]:
    """Status, Content-Range and Content-Length of the answer."""
    try:
        found = asked.select(thing)
    except Stale:
        return 412, "", ""
    status = found.status if isinstance(found, Selected) else found.status_code
    return status, found.headers.get("Content-Range", ""), found.headers.get("Content-Length", "")


@pytest.mark.parametrize(
    ("asked", "status", "content_range"),
    [
        ("bytes=0-0", 206, "bytes 0-0/100"),
        ("bytes=99-", 206, "bytes 99-99/100"),
        ("bytes=90-1000", 206, "bytes 90-99/100"),
        ("bytes=-5", 206, "bytes 95-99/100"),
        ("bytes=-1000", 206, "bytes 0-99/100"),
        ("Bytes=1-2", 206, "bytes 1-2/100"),
        ("bytes=100-", 416, "bytes */100"),
        ("bytes=-0", 416, "bytes */100"),
        *(
            (other, 200, "")
            for other in ("bytes=2-1", "bytes=-", "bytes=0-1,4-5", "lines=1-2", "", "x" * 999)
        ),
        ("bytes=٣-٤", 200, ""),
    ],
)
def test_a_range_is_the_bytes_that_it_names(asked: str, status: int, content_range: str) -> None:
    """Breaks: a player that seeks gets other bytes, or an error where it could have the whole."""
    assert told(Conditions(range=asked))[:2] == (status, content_range)


def test_the_last_bytes_of_nothing_are_all_of_it() -> None:
    """Breaks: a player that asks for the end of an empty recording gets an error."""
    assert told(Conditions(range="bytes=-5"), EMPTY) == (200, "", "0")
    assert told(Conditions(range="bytes=0-"), EMPTY)[0] == 416


@pytest.mark.parametrize("if_range", ['"b2"', f"W/{ETAG}", "Mon, 30 Nov 2026 13:00:00 GMT", "", "*"])
def test_a_range_under_another_state_is_the_whole(if_range: str) -> None:
    """Breaks: a download that is taken up again joins the bytes of two recordings."""
    assert told(Conditions(range="bytes=10-", if_range=if_range)) == (200, "", "100")
    assert told(Conditions(range="bytes=10-", if_range=ETAG))[0] == 206
    assert told(Conditions(range="bytes=900-", if_range=if_range))[0] == 200


def test_what_grows_has_no_state_that_a_condition_could_name() -> None:
    """Breaks: the begin of a live recording is joined with another state, or kept as the whole."""
    for named in ("", '""', ETAG):
        assert told(Conditions(range="bytes=10-", if_range=named), GROWING)[0] == 200
        assert told(Conditions(if_none_match=named), GROWING)[0] == 200
        assert told(Conditions(if_match=named), GROWING)[0] == 412
    assert told(Conditions(range="bytes=10-"), GROWING) == (206, "bytes 10-99/*", "90")
    assert "ETag" not in Conditions().select(GROWING).headers


@pytest.mark.parametrize(
    ("header", "strongly", "weakly"),
    [
        (ETAG, True, True),
        (f'"x,y", {ETAG}', True, True),
        (f"W/{ETAG}", False, True),
        ("*", True, True),
        ('"x"', False, False),
        ("a1", False, False),
        ("", False, False),
        (f'"x{ETAG}', False, False),
    ],
)
def test_conditions_compare_as_the_standard_says(header: str, strongly: bool, weakly: bool) -> None:
    """Breaks: a cache shows other bytes than were asked for, or takes all of them each time."""
    assert told(Conditions(if_match=header))[0] == (200 if strongly else 412)
    assert told(Conditions(if_none_match=header))[0] == (304 if weakly else 200)


def test_conditions_come_before_the_range() -> None:
    """Breaks: a caller that has the bytes gets a part of them again, or an error."""
    assert told(Conditions(if_match='"x"', if_none_match=ETAG, range="bytes=900-"))[0] == 412
    assert told(Conditions(if_none_match=ETAG, range="bytes=900-"))[0] == 304


def test_head_tells_the_whole_and_takes_no_range() -> None:
    """Breaks: a client that asks for the length takes that of a part for it."""
    assert told(Conditions(is_head=True, range="bytes=0-1")) == (200, "", "100")
    assert told(Conditions(is_head=True, if_none_match=ETAG))[0] == 304
