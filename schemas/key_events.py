"""Owns the bodies in KEYS: a wrapped data key, and the fence that ends a session's keys for good.

1. The last message of a subject tells: a wrap is in force, a fence means that there will never be a key.
2. Bodies are JCS; nothing of a key is in them but its wrap.
"""

from typing import Annotated, Literal

from pydantic import Field, TypeAdapter, ValidationError

from schemas.buffers import Bytes
from schemas.errors import Rejected
from schemas.types import B64, Frozen, Hex16


class KeyWrapped(Frozen):
    """A data key under a version of the master key (format.md §3)."""

    type: Literal["lucid.key.wrapped.v1"] = "lucid.key.wrapped.v1"
    uid: Hex16
    dek_id: Hex16
    wrap: B64


class KeyFenced(Frozen):
    """No key may follow, and those before are to be erased."""

    type: Literal["lucid.key.fenced.v1"] = "lucid.key.fenced.v1"
    uid: Hex16


KeyEvent = Annotated[KeyWrapped | KeyFenced, Field(discriminator="type")]
_KEY_EVENT: TypeAdapter[KeyEvent] = TypeAdapter(KeyEvent)


def read_key_event(data: Bytes) -> KeyEvent:
    """Raises Rejected (event.malformed)."""
    try:
        return _KEY_EVENT.validate_json(data)
    except ValidationError as error:
        raise Rejected(f"not an event of KEYS: {error.errors()[0]['msg']}", code="event.malformed") from None
