"""The answer of a worker about its messages: read in every form of before, and in no other."""

import pytest

from schemas.errors import Rejected
from schemas.events.tries import TEXT_MOST, Try, read_tries, write_tries


def test_an_answer_is_read_as_it_was_written() -> None:
    """Breaks: an engineer sees another error, or another chunk, than the worker has."""
    tries = {7: Try(2, True, "blobs.io", "no answer", 1_000_000), 9: Try(1, False)}
    assert read_tries(write_tries(tries)) == tries
    assert read_tries(b"{}") == {}


def test_an_answer_of_an_older_or_newer_worker_is_read() -> None:
    """Breaks: while an installation is updated worker by worker, nobody sees the tries."""
    assert read_tries(b'{"7": [2, true, "a.b", "c"]}') == {7: Try(2, True, "a.b", "c")}
    assert read_tries(b'{"7": [2, true, "a.b", "c", 5, {"new": 1}]}') == {7: Try(2, True, "a.b", "c", 5)}
    (one,) = read_tries(write_tries({1: Try(text="x" * 9999)})).values()
    assert len(one.text) == TEXT_MOST


MALFORMED = (
    b"",
    b"[]",
    b"null",
    b"[" * 100_000,
    b'{"7": null}',
    b'{"7": [1, true]}',
    b'{"7": {"0": 1, "1": 2, "2": 3, "3": 4}}',
    b'{"seven": [1, true, "", ""]}',
    b'{"-7": [1, true, "", ""]}',
    b'{"7": [1, 1, "", ""]}',
    b'{"7": ["1", true, "", ""]}',
    b'{"7": [true, true, "", ""]}',
    b'{"7": [1, true, 0, ""]}',
    b'{"7": [1, true, "", null]}',
    b'{"7": [1, true, "", "", 1e400]}',
    b'{"7": [1, true, "", "", "5"]}',
    b'{"7": [1, true, "", "", -5]}',
    b'{"7": [1, true, "", "", ' + b"9" * 5000 + b"]}",
    b'{"7": [1, true, "", ""], "8": 0}',
)


@pytest.mark.parametrize("raw", MALFORMED, ids=lambda raw: raw[:40].decode())
def test_a_malformed_answer_is_refused_with_a_code(raw: bytes) -> None:
    """Breaks: one wrong worker, and `where` fails, or no session is proven for hours."""
    with pytest.raises(Rejected, match="malformed"):
        read_tries(raw)
