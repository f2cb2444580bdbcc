"""Seals and opens the personal fields of a session, and its RDP password (format.md §15).

    off  size  field                     DEK ── Expand "lucid/v1/details", 64        key 32 ‖ K_nonce 32
      0     1  version 1                     ── Expand "lucid/v1/rdp-password", 64   key 32 ‖ K_nonce 32
      1     1  kind: 1 details, 2 password
      2    24  nonce                     content = u16 n ‖ text n ‖ zeros to a multiple of 256
     26   n+16 XChaCha20-Poly1305        AAD = version ‖ kind ‖ uid 16 ‖ revision u64

1. The same key, revision and text give the same bytes. The nonce depends on them all: no two contents share
   one.
2. A blob opens as the one revision of the one session for which it was made.
3. Its length says only how many blocks of 256 bytes the text fills.
"""

import struct
from enum import IntEnum

from blake3 import blake3
from pydantic import ValidationError

from handlers.crypto.primitives import (
    TAG_BYTES,
    XNONCE_BYTES,
    expand,
    same,
    xchacha20poly1305_decrypt,
    xchacha20poly1305_encrypt,
)
from schemas.errors import EvidenceFalse, LucidError, TooLarge
from schemas.events.details import Details
from schemas.format.jcs import jcs, strict_loads

VERSION = 1
BLOCK_BYTES = 256
CONTENT_MOST = 64 * BLOCK_BYTES
_LENGTH = struct.Struct("<H")
TEXT_MOST = CONTENT_MOST - _LENGTH.size
_HEAD = struct.Struct("<BB")
_BOUND = struct.Struct("<BB16sQ")
_SEALED_AT = _HEAD.size + XNONCE_BYTES
BLOB_MOST = _SEALED_AT + CONTENT_MOST + TAG_BYTES
"""Bytes of the longest blob: 16,426."""


class BlobKind(IntEnum):
    DETAILS = 1
    RDP_PASSWORD = 2


_LABELS = {
    BlobKind.DETAILS: b"lucid/v1/details",
    BlobKind.RDP_PASSWORD: b"lucid/v1/rdp-password",
}


def seal_details(dek: bytes, uid: bytes, revision: int, details: Details) -> bytes:
    """Return the blob of these fields. revision: 1 for Created, then one more for each change.

    Raises TooLarge (details.size).
    """
    text = jcs(details.model_dump(mode="json", exclude_defaults=True))
    return _seal(BlobKind.DETAILS, dek, uid, revision, text)


def open_details(dek: bytes, uid: bytes, revision: int, blob: bytes) -> Details:
    """Return the fields in a blob.

    Raises EvidenceFalse: details.form (no such blob), details.tag (other key, session or revision, or
    changed bytes), details.content (a key holder sealed something else).
    """
    text = _open(BlobKind.DETAILS, dek, uid, revision, blob)
    try:
        return Details.model_validate(strict_loads(text))
    except (LucidError, ValidationError):
        raise EvidenceFalse("the sealed details are no details", code="details.content") from None


def seal_password(dek: bytes, uid: bytes, revision: int, password: str) -> bytes:
    """Return the blob of the RDP password. Only a recorder that logs in for the session opens it."""
    return _seal(BlobKind.RDP_PASSWORD, dek, uid, revision, password.encode())


def open_password(dek: bytes, uid: bytes, revision: int, blob: bytes) -> str:
    """Return the RDP password. Raises as `open_details`."""
    try:
        return _open(BlobKind.RDP_PASSWORD, dek, uid, revision, blob).decode()
    except UnicodeDecodeError:
        raise EvidenceFalse("the sealed password is no text", code="details.content") from None


def _seal(kind: BlobKind, dek: bytes, uid: bytes, revision: int, text: bytes) -> bytes:
    if len(text) > TEXT_MOST:
        raise TooLarge(
            f"the details have {len(text)} bytes (most: {TEXT_MOST})",
            code="details.size",
            hint="shorten the description",
        )
    size = _LENGTH.size + len(text)
    content = _LENGTH.pack(len(text)) + text + bytes(-size % BLOCK_BYTES)
    key, nonce_key = _keys(kind, dek)
    bound = _BOUND.pack(VERSION, kind, uid, revision)
    nonce = _nonce(nonce_key, bound, content)
    return _HEAD.pack(VERSION, kind) + nonce + xchacha20poly1305_encrypt(key, nonce, content, bound)


def _open(kind: BlobKind, dek: bytes, uid: bytes, revision: int, blob: bytes) -> bytes:
    size = len(blob) - _SEALED_AT - TAG_BYTES
    if not 0 < size <= CONTENT_MOST or size % BLOCK_BYTES or blob[: _HEAD.size] != _HEAD.pack(VERSION, kind):
        raise EvidenceFalse(f"{len(blob)} bytes are no sealed {kind.name.lower()}", code="details.form")
    key, nonce_key = _keys(kind, dek)
    bound = _BOUND.pack(VERSION, kind, uid, revision)
    nonce = blob[_HEAD.size : _SEALED_AT]
    try:
        content = xchacha20poly1305_decrypt(key, nonce, blob[_SEALED_AT:], bound)
    except EvidenceFalse:
        content = b""
    if not content or not same(nonce, _nonce(nonce_key, bound, content)):
        raise EvidenceFalse(
            f"revision {revision} of the details of session {uid.hex()} does not open", code="details.tag"
        )
    (length,) = _LENGTH.unpack_from(content)
    end = _LENGTH.size + length
    if len(content) != end + -end % BLOCK_BYTES or any(content[end:]):
        raise EvidenceFalse("the sealed details have another length", code="details.content")
    return content[_LENGTH.size : end]


def _keys(kind: BlobKind, dek: bytes) -> tuple[bytes, bytes]:
    made = expand(dek, _LABELS[kind], 64)
    return made[:32], made[32:]


def _nonce(nonce_key: bytes, bound: bytes, content: bytes) -> bytes:
    return blake3(bound + content, key=nonce_key).digest()[:XNONCE_BYTES]
