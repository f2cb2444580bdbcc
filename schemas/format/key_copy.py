"""The first record of a copy of `keys/`, named `copy`: its origin and its end. JCS."""

from typing import Literal

from pydantic import ValidationError

from schemas.buffers import Bytes
from schemas.errors import Denied
from schemas.types import Frozen, Hex16, Label, TimeUs


class KeyCopy(Frozen):
    """The installation of the keys, and the time until which the copy is kept."""

    type: Literal["lucid.keycopy"] = "lucid.keycopy"
    version: Literal[1] = 1
    installation: Hex16
    label: Label
    made_us: TimeUs
    until_us: TimeUs


def read_key_copy(data: Bytes) -> KeyCopy:
    """Raises Denied (keys.copy)."""
    try:
        return KeyCopy.model_validate_json(data)
    except ValidationError:
        raise Denied("the copy of keys/ names no installation", code="keys.copy") from None
