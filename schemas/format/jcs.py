"""The JSON of the format: RFC 8785 (JCS), narrowed (format.md §1, JSON).

1. Integers only, |n| < 2^53; no null; no number with a fraction or an exponent.
2. Each value has exactly one text: a text in another form is refused.
"""

import json
from typing import Any, NoReturn

import rfc8785

from schemas.errors import Rejected

INT_LIMIT = 2**53
INT_DIGITS = 16
"""Digits of the greatest integer. A longer number is refused before it is converted."""


def jcs(value: object) -> bytes:
    """Return the canonical text of a value of dicts, lists, strings, integers and booleans.

    Raises Rejected (json.null, json.number, json.form).
    """
    try:
        _refuse(value)
        return rfc8785.dumps(value)  # type: ignore[arg-type]  # _refuse has narrowed it
    except (rfc8785.CanonicalizationError, UnicodeEncodeError, RecursionError) as error:
        raise Rejected(f"not a value of this JSON: {error}", code="json.form") from None


def strict_loads(raw: bytes) -> Any:
    """Return the value of a canonical text.

    Raises Rejected: json.form (not JSON, not UTF-8, too deep), json.duplicate, json.null, json.number,
    json.canonical (the value has another canonical text).
    """
    try:
        value = DECODER.decode(raw.decode())
    except (ValueError, RecursionError) as error:
        raise Rejected(f"not JSON: {str(error)[:200]}", code="json.form") from None
    if jcs(value) != raw:
        raise Rejected("JSON is not in canonical form (RFC 8785)", code="json.canonical")
    return value


def _refuse(value: object) -> None:
    match value:
        case str() | bool():
            return
        case int():
            if abs(value) >= INT_LIMIT:
                _no_float(str(value))
        case dict():
            for name, member in value.items():
                if not isinstance(name, str):
                    raise Rejected(f"member name {name!r} is no text", code="json.form")
                _refuse(member)
        case list() | tuple():
            for item in value:
                _refuse(item)
        case None:
            raise Rejected("null is not allowed", code="json.null")
        case float():
            _no_float(repr(value))
        case _:
            raise Rejected(f"{type(value).__name__} is not allowed in this JSON", code="json.form")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise Rejected("JSON object names a member twice", code="json.duplicate")
    return members


def _no_float(text: str) -> NoReturn:
    raise Rejected(
        f"number {text[:40]} is not allowed: integers with |n| < 2^53 only", code="json.number"
    ) from None


def _small(text: str) -> int:
    if len(text.lstrip("-")) > INT_DIGITS:
        _no_float(text)
    return int(text)


DECODER = json.JSONDecoder(
    object_pairs_hook=_once, parse_float=_no_float, parse_constant=_no_float, parse_int=_small
)
"""Reads JSON and refuses forbidden values. It does not check whether the text is canonical."""
