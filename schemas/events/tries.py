"""The answer of a worker about the messages that it has in hand: one row each, by sequence in CHUNKS.

1. A row is `[deliveries, busy, code, text, published_us]`. A worker of before sends four of them; members
   of a newer worker are ignored.
2. One malformed row makes the whole answer malformed: no worker of ours has sent it.
"""

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from schemas.errors import Rejected

TEXT_MOST = 200
"""Characters of an error: 1,000 errors fit into one answer."""
LEAST_MEMBERS = 4


class Try(NamedTuple):
    """One message. code, text: its last error. published_us: by the server's clock; 0: unknown."""

    deliveries: int = 0
    busy: bool = False
    code: str = ""
    text: str = ""
    published_us: int = 0


def write_tries(tries: Mapping[int, Try]) -> bytes:
    """Return the answer."""
    return json.dumps({str(seq): one for seq, one in tries.items()}).encode()


def read_tries(raw: bytes) -> dict[int, Try]:
    """Return the messages in an answer. Raises Rejected (tries.malformed)."""
    try:
        return {_number(int(seq)): _try(row) for seq, row in json.loads(raw).items()}
    except (ValueError, TypeError, AttributeError, RecursionError):
        raise Rejected(
            "the answer of a worker about its messages is malformed", code="tries.malformed"
        ) from None


def _try(row: list[Any]) -> Try:
    """Raises ValueError, TypeError."""
    if not isinstance(row, list) or len(row) < LEAST_MEMBERS:
        raise ValueError(row)
    found = Try(*row[: len(Try._fields)])
    if not isinstance(found.busy, bool) or not isinstance(found.code, str) or not isinstance(found.text, str):
        raise TypeError(row)
    _number(found.deliveries)
    _number(found.published_us)
    return found._replace(text=found.text[:TEXT_MOST])


def _number(found: object) -> int:
    if type(found) is not int or not 0 <= found < 2**53:
        raise ValueError(found)
    return found
