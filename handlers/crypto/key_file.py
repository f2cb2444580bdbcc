"""Builds and opens one key file: a session's data key, wrapped for the master key (format.md §3).

    off  size   field                      off  size   field
      0     4   magic `LKEY`                28    16   dek id
      4     1   version 1                   44    24   nonce
      5     3   reserved                    68    48   XChaCha20-Poly1305 of the DEK, tag 16 included
      8     4   master version             116  3980   padding, random
     12    16   uid

1. The wrapping key is derived from the master key and the padding. The file opens only while every byte of it
   is known: one overwritten sector destroys it.
2. Every byte before the nonce is authenticated. The DEK must have the id in the file.
3. A file that does not open is Denied: a wrong key and wrong bytes look the same.
"""

import struct
from collections.abc import Mapping
from typing import NamedTuple, NoReturn

from handlers.crypto.keys import dek_id
from handlers.crypto.primitives import (
    KEY_BYTES,
    TAG_BYTES,
    XNONCE_BYTES,
    random_bytes,
    xchacha20poly1305_decrypt,
    xchacha20poly1305_encrypt,
)
from schemas.errors import Denied, EvidenceFalse
from schemas.format.digest import d

KEY_FILE_BYTES = 4096
MAGIC, VERSION = b"LKEY", 1
_HEAD = struct.Struct("<4sB3sI16s16s")
_NONCE_AT = _HEAD.size
_SEALED_AT = _NONCE_AT + XNONCE_BYTES
_PADDING_AT = _SEALED_AT + KEY_BYTES + TAG_BYTES
PADDING_BYTES = KEY_FILE_BYTES - _PADDING_AT
WRAP_CONTEXT = "lucid v1 session wrap"


class KeyFileHead(NamedTuple):
    """The readable head of a key file."""

    master_version: int
    uid: bytes
    dek_id: bytes


def build_key_file(
    master: bytes, version: int, uid: bytes, dek: bytes, *, nonce: bytes = b"", padding: bytes = b""
) -> bytes:
    """Return the 4,096 bytes of a key file. nonce, padding: random unless given."""
    nonce, padding = nonce or random_bytes(XNONCE_BYTES), padding or random_bytes(PADDING_BYTES)
    head = _HEAD.pack(MAGIC, VERSION, bytes(3), version, uid, dek_id(dek))
    key = d(WRAP_CONTEXT, master + padding)
    return head + nonce + xchacha20poly1305_encrypt(key, nonce, dek, head) + padding


def read_head(raw: bytes) -> KeyFileHead:
    """Return the head of a key file. Raises Denied (keys.file)."""
    if len(raw) != KEY_FILE_BYTES:
        _denied(f"a key file has {KEY_FILE_BYTES} bytes, not {len(raw)}")
    magic, version, reserved, master_version, uid, key_id = _HEAD.unpack_from(raw)
    if (magic, version, reserved) != (MAGIC, VERSION, bytes(3)):
        _denied(f"the file is not a key file of version {VERSION}")
    return KeyFileHead(master_version, uid, key_id)


def open_key_file(masters: Mapping[int, bytes], uid: bytes, raw: bytes) -> bytes:
    """Return the DEK. Raises Denied: keys.file (another session's, or changed), keys.kek (version absent)."""
    head = read_head(raw)
    if head.uid != uid:
        _denied(f"the key file of session {uid.hex()} belongs to session {head.uid.hex()}")
    if head.master_version not in masters:
        raise Denied(
            f"master key version {head.master_version} is not held (held: {sorted(masters) or 'none'})",
            code="keys.kek",
            hint="restore it to the keys folder, or set ENCRYPTION_KEY",
        )
    nonce, sealed = raw[_NONCE_AT:_SEALED_AT], raw[_SEALED_AT:_PADDING_AT]
    key = d(WRAP_CONTEXT, masters[head.master_version] + raw[_PADDING_AT:])
    try:
        dek = xchacha20poly1305_decrypt(key, nonce, sealed, raw[:_NONCE_AT])
    except EvidenceFalse:
        _denied(f"the key file of session {uid.hex()} does not open under master key {head.master_version}")
    if dek_id(dek) != head.dek_id:
        _denied(f"the key file of session {uid.hex()} holds another key")
    return dek


def _denied(message: str) -> NoReturn:
    raise Denied(message, code="keys.file") from None
