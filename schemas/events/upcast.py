"""Reads chunk events of every version: an old body becomes today's model step by step.

1. `UPCASTERS` maps an old type to the function that makes the body of the next version.
2. Pure. A body that no model reads is Rejected (event.malformed, event.unknown).
"""

import json
from collections.abc import Callable
from typing import Any

from pydantic import ValidationError

from schemas.buffers import Bytes
from schemas.errors import Rejected
from schemas.events.chunk import (
    Chunked,
    Compressed,
    Dead,
    Encrypted,
    Ended,
    Proven,
    Recorded,
    Redriven,
    Stored,
)
from schemas.types import Frozen

UPCASTERS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {}
"""By old type. The result has a newer `type`."""

_KINDS = (Recorded, Ended, Redriven, Chunked, Compressed, Encrypted, Proven, Stored, Dead)
MODELS: dict[str, type[Frozen]] = {kind.model_fields["type"].default: kind for kind in _KINDS}


def read_chunk_event(data: Bytes) -> Frozen:
    """Return the event in a message of CHUNKS or DEAD. Raises Rejected (event.malformed, event.unknown)."""
    try:
        body = json.loads(data)
        kind = str(body["type"])
        while kind in UPCASTERS:
            body = UPCASTERS[kind](body)
            kind = str(body["type"])
    except (ValueError, RecursionError, TypeError, KeyError) as error:
        raise Rejected(f"not an event: {error!r}", code="event.malformed") from None
    model = MODELS.get(kind)
    if model is None:
        raise Rejected(f"an event of an unknown type: {kind[:80]!r}", code="event.unknown")
    try:
        return model.model_validate(body)
    except ValidationError as error:
        why = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()[:3])
        raise Rejected(f"{kind}: {why}", code="event.malformed") from None


def read_recorded(data: Bytes) -> Recorded | Ended:
    """Return an event of the `recorded` subject. Raises Rejected (event.*)."""
    event = read_chunk_event(data)
    if not isinstance(event, Recorded | Ended):
        raise Rejected(f"{type(event).__name__} where a recorded event belongs", code="event.unexpected")
    return event
