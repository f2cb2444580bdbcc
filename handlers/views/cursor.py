"""Writes and reads the cursor of a page: the place of its last document, signed.

    cursor = base64url(order u8 ‖ descending u8 ‖ value i64 ‖ number u64 ‖ MAC 16)
    MAC    = BLAKE3(cursor key, the bytes before it)[:16]

A cursor that was made for another order, changed, or made up is Misuse (list.cursor).
"""

import base64
import binascii
import struct

from blake3 import blake3

from handlers.crypto.primitives import same
from schemas.errors import Misuse
from schemas.ports.read_models import SORT_FIELDS, Place, SessionDocument, Sort

MAC_BYTES = 16
_BODY = struct.Struct("<BBqQ")
_ORDERS = tuple(Sort)


def place_of(document: SessionDocument, sort: Sort) -> Place:
    """Return the place of a document in an order."""
    return Place(getattr(document, SORT_FIELDS[sort]), document.number)


def write_cursor(key: bytes, sort: Sort, descending: bool, place: Place) -> str:
    """Return the text of a cursor, 48 letters."""
    body = _BODY.pack(_ORDERS.index(sort), descending, *place)
    return base64.urlsafe_b64encode(body + _mac(key, body)).decode().rstrip("=")


def read_cursor(key: bytes, sort: Sort, descending: bool, text: str) -> Place:
    """Return the place in a cursor. Raises Misuse (list.cursor)."""
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    body = raw[: _BODY.size]
    if len(raw) == _BODY.size + MAC_BYTES and same(raw[_BODY.size :], _mac(key, body)):
        order, was_descending, value, number = _BODY.unpack(body)
        if (order, was_descending) == (_ORDERS.index(sort), descending):
            return Place(value, number)
    raise Misuse(
        "the cursor is not one that this list gave for this order",
        code="list.cursor",
        hint="repeat the query that gave it, or begin without a cursor",
    )


def _mac(key: bytes, body: bytes) -> bytes:
    return blake3(body, key=key).digest()[:MAC_BYTES]
