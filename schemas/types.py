"""The field types that JSON bodies share.

Fixed-length binary is lowercase hex; whole fragments are padded base64; times are µs since 1970 UTC.
"""

import base64
import binascii
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, StringConstraints


def _hex(length: int) -> Callable[[object], bytes]:
    def parse(value: object) -> bytes:
        if isinstance(value, str):
            if value != value.lower():
                raise ValueError("hex must be lowercase")
            value = bytes.fromhex(value)
        if not isinstance(value, bytes) or len(value) != length:
            raise ValueError(f"{length} bytes wanted")
        return value

    return parse


def _base64(value: object) -> bytes:
    if isinstance(value, str):
        try:
            raw = base64.b64decode(value, validate=True)
        except binascii.Error as error:
            raise ValueError(f"not base64: {error}") from None
        if base64.b64encode(raw).decode() != value:
            raise ValueError("base64 is not canonical")
        return raw
    if not isinstance(value, bytes):
        raise ValueError("base64 text wanted")
    return value


_as_hex = PlainSerializer(lambda value: value.hex(), return_type=str)

Hex16 = Annotated[bytes, BeforeValidator(_hex(16)), _as_hex]
Hex32 = Annotated[bytes, BeforeValidator(_hex(32)), _as_hex]
Hex64 = Annotated[bytes, BeforeValidator(_hex(64)), _as_hex]
Hex96 = Annotated[bytes, BeforeValidator(_hex(96)), _as_hex]
Hex128 = Annotated[bytes, BeforeValidator(_hex(128)), _as_hex]
Hex158 = Annotated[bytes, BeforeValidator(_hex(158)), _as_hex]
Hex1216 = Annotated[bytes, BeforeValidator(_hex(1216)), _as_hex]
B64 = Annotated[
    bytes,
    BeforeValidator(_base64),
    PlainSerializer(lambda value: base64.b64encode(value).decode(), return_type=str),
]
LABEL_PATTERN = r"^[A-Za-z0-9_.-]{1,100}$"
Label = Annotated[str, StringConstraints(pattern=LABEL_PATTERN)]
"""A code or a pseudonym, never personal data."""
Count = Annotated[int, Field(ge=0, lt=2**53)]
CodecNumber = Literal[0, 1, 2, 3, 4]
"""schemas.format.chunk_header.Codec names them."""
EndKind = Literal["final", "aborted", "host_lost"]
"""How a recording ended: by its host, by a command, or because its host fell silent."""
ForcedEnd = Literal["aborted", "host_lost"]
"""An ending that the platform made."""
TimeUs = Annotated[int, Field(gt=-(2**53), lt=2**53)]
"""Microseconds since 1970 UTC."""


def utc_text(at_us: int, *, seconds: bool = True) -> str:
    """Return a time such as `2026-03-04 09:12:44 UTC`; outside the calendar the number of µs."""
    try:
        at = datetime.fromtimestamp(at_us / 1e6, UTC)
    except (ValueError, OverflowError, OSError):
        return f"{at_us} µs"
    return at.strftime(f"%Y-%m-%d %H:%M{':%S' if seconds else ''} UTC")


class Frozen(BaseModel):
    """An immutable JSON body that ignores members of a newer writer."""

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)
