"""Seals and opens a copy of `keys/` under a passphrase.

    off  size  field                     off  size  field
      0     4  magic `LKCP`               16     4  Argon2id memory, KiB
      4     1  version 1                  20    16  salt, random
      5     3  reserved                   36        pieces: XChaCha20-Poly1305 of 1 MiB each, the last may be
      8     4  Argon2id passes                      shorter, tag 16 included
     12     4  Argon2id lanes

    key = Argon2id(passphrase, salt), 32      nonce = piece number u64 ‖ last u8 (1 for the last) ‖ 15 zero
    AAD = bytes 0 to 36                       content: records, name length u16 ‖ length u32 ‖ name ‖ bytes

1. Each copy has its own salt, so its own key: no nonce is used twice.
2. A truncated copy has no last piece. No byte of a piece is released before its tag is checked.
3. The first record is named `copy` and names the installation (schemas.format.key_copy). Names and sizes are
   checked before memory is allocated.
"""

import re
import struct
from collections.abc import Iterable, Iterator
from typing import BinaryIO, NamedTuple, NoReturn

from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from handlers.crypto.primitives import (
    KEY_BYTES,
    TAG_BYTES,
    random_bytes,
    xchacha20poly1305_decrypt,
    xchacha20poly1305_encrypt,
)
from schemas.errors import Denied, EvidenceFalse, Misuse

MAGIC, VERSION = b"LKCP", 1
_HEADER = struct.Struct("<4sB3sIII16s")
HEADER_BYTES = _HEADER.size
SALT_BYTES = 16
PIECE_BYTES = 1 << 20
PASSES, LANES, MEMORY_KIB = 3, 4, 64 << 10
PASSES_MOST, LANES_MOST, MEMORY_MOST_KIB = 64, 64, 4 << 20
"""Limits on the cost that a copy may demand from its reader."""
PASSPHRASE_LEAST = 12
"""Characters."""
_RECORD = struct.Struct("<HI")
CONTENT_MOST_BYTES = 64 << 10
NAME = re.compile(
    r"copy|installation|salt|(index|root)\.json|signer(-\d{8})?\.json|master-\d{8}\.json"
    r"|revoked-[a-z0-9-]{1,80}\.json|sessions/[0-9a-f]{32}"
)
NAME_MOST_BYTES = 100
SESSIONS = "sessions/"


class Record(NamedTuple):
    """One file of `keys/`. An empty `sessions/<uid>` is the fence of an erased key."""

    name: str
    content: bytes


def new_header() -> bytes:
    return _HEADER.pack(MAGIC, VERSION, bytes(3), PASSES, LANES, MEMORY_KIB, random_bytes(SALT_BYTES))


def copy_key(header: bytes, passphrase: str) -> bytes:
    """Return the key of one copy, in about a second. Raises Misuse (keys.no_copy, keys.passphrase)."""
    if len(header) != HEADER_BYTES:
        _no_copy()
    magic, version, reserved, passes, lanes, memory_kib, salt = _HEADER.unpack(header)
    if (magic, version, reserved) != (MAGIC, VERSION, bytes(3)):
        _no_copy()
    if not (
        0 < passes <= PASSES_MOST and 0 < lanes <= LANES_MOST and 8 * lanes <= memory_kib <= MEMORY_MOST_KIB
    ):
        _no_copy()
    if len(passphrase) < PASSPHRASE_LEAST:
        raise Misuse(
            f"the passphrase has {len(passphrase)} characters (allowed: at least {PASSPHRASE_LEAST})",
            code="keys.passphrase",
        )
    kdf = Argon2id(salt=salt, length=KEY_BYTES, iterations=passes, lanes=lanes, memory_cost=memory_kib)
    return kdf.derive(passphrase.encode())


def seal_copy(header: bytes, key: bytes, records: Iterable[Record]) -> Iterator[bytes]:
    """Yield the sealed pieces after the header."""
    held, number = bytearray(), 0
    for name, content in records:
        assert NAME.fullmatch(name), name
        assert len(content) <= CONTENT_MOST_BYTES, name
        held += _RECORD.pack(len(name), len(content)) + name.encode() + content
        while len(held) > PIECE_BYTES:  # not >=: the last piece is never empty
            yield xchacha20poly1305_encrypt(key, _nonce(number, last=False), held[:PIECE_BYTES], header)
            del held[:PIECE_BYTES]
            number += 1
    yield xchacha20poly1305_encrypt(key, _nonce(number, last=True), bytes(held), header)


def open_copy(header: bytes, key: bytes, file: BinaryIO) -> Iterator[Record]:
    """Yield the records of a copy. file: positioned after the header. Raises Denied (keys.copy)."""
    held, number = bytearray(), 0
    following = file.read(PIECE_BYTES + TAG_BYTES)
    while following:
        piece, following = following, file.read(PIECE_BYTES + TAG_BYTES)
        try:
            held += xchacha20poly1305_decrypt(key, _nonce(number, last=not following), piece, header)
        except EvidenceFalse:
            _denied("the passphrase is wrong, or the file was changed or cut")
        number += 1
        while (record := _taken(held)) is not None:
            yield record
    if held or not number:
        _denied("it ends within a record")


def _taken(held: bytearray) -> Record | None:
    """Remove and return the first record; None: more bytes are needed."""
    if len(held) < _RECORD.size:
        return None
    name_length, length = _RECORD.unpack_from(held)
    if name_length > NAME_MOST_BYTES or length > CONTENT_MOST_BYTES:
        _denied("a record is too long")
    end = _RECORD.size + name_length + length
    if len(held) < end:
        return None
    name = held[_RECORD.size : _RECORD.size + name_length].decode("ascii", "replace")
    if NAME.fullmatch(name) is None:
        _denied("it holds a file name that keys/ does not have")
    content = bytes(held[_RECORD.size + name_length : end])
    del held[:end]
    return Record(name, content)


def _nonce(number: int, *, last: bool) -> bytes:
    return number.to_bytes(8, "little") + bytes([last]) + bytes(15)


def _no_copy() -> NoReturn:
    raise Misuse("the file is not a copy of keys/ that this version can read", code="keys.no_copy")


def _denied(why: str) -> NoReturn:
    raise Denied(f"the copy of keys/ cannot be opened: {why}", code="keys.copy")
