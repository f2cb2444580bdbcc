import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import Rejected
from schemas.format.jcs import INT_LIMIT, jcs, strict_loads

_values = st.recursive(
    st.booleans() | st.integers(-INT_LIMIT + 1, INT_LIMIT - 1) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=12,
)


@given(_values)
def test_every_value_has_one_text_that_reads_back(value: object) -> None:
    """Breaks: a signature over one text would not hold over what it means."""
    assert strict_loads(jcs(value)) == value


def test_members_are_ordered_by_utf_16() -> None:
    """Breaks: signatures of other writers of RFC 8785."""
    assert jcs({"\U0001f600": 1, "\ufb33": 2}) == '{"\U0001f600":1,"\ufb33":2}'.encode()


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (b"", "json.form"),
        (b"\xff", "json.form"),
        (b"\xef\xbb\xbf1", "json.form"),
        (b"[" * 100_000, "json.form"),
        (b'"\\ud800"', "json.form"),
        (b"null", "json.null"),
        (b'{"a":[null]}', "json.null"),
        (b"1.0", "json.number"),
        (b"1e3", "json.number"),
        (b"NaN", "json.number"),
        (b"-Infinity", "json.number"),
        (b"9007199254740992", "json.number"),
        (b"-9007199254740992", "json.number"),
        (b"1" * 100_000, "json.number"),
        (b'{"a":1,"a":1}', "json.duplicate"),
        (b'{"b":1,"a":1}', "json.canonical"),
        (b'{"a": 1}', "json.canonical"),
        (b"1 ", "json.canonical"),
        (b"1\n", "json.canonical"),
        (b"-0", "json.canonical"),
        (b'"\\u0061"', "json.canonical"),
        (b'"\\/"', "json.canonical"),
    ],
)
def test_another_text_is_refused(raw: bytes, code: str) -> None:
    """Breaks: a flipped bit that changes no meaning would go unseen."""
    with pytest.raises(Rejected) as caught:
        strict_loads(raw)
    assert caught.value.code == code


@pytest.mark.parametrize("value", [INT_LIMIT - 1, 1 - INT_LIMIT, 0, True])
def test_numbers_up_to_the_border_are_taken(value: int) -> None:
    """Breaks: the greatest numbers of the format."""
    assert strict_loads(jcs(value)) == value
    assert json.loads(jcs(value)) == value


@pytest.mark.parametrize("value", [INT_LIMIT, 1.0, None, b"a", {1: 2}, [None], {"a": 0.5}, object()])
def test_a_value_outside_our_json_is_not_written(value: object) -> None:
    """Breaks: we would sign what we refuse to read."""
    with pytest.raises(Rejected):
        jcs(value)
