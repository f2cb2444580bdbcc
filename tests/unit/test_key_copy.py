"""The sealed copy of keys/: what it gives back, and what it refuses."""

import io
import struct

import pytest

from handlers.crypto.key_copy import (
    HEADER_BYTES,
    PIECE_BYTES,
    Record,
    copy_key,
    new_header,
    open_copy,
    seal_copy,
)
from handlers.crypto.primitives import xchacha20poly1305_encrypt
from schemas.errors import Denied, Misuse

HEADER, KEY = new_header(), b"k" * 32
FILES = [
    Record("copy", b"{}"),
    Record("master-00000001.json", b"x" * 200),
    Record("sessions/" + "ab" * 16, b""),
]


def sealed(records: list[Record]) -> bytes:
    return b"".join(seal_copy(HEADER, KEY, records))


def opened(raw: bytes, key: bytes = KEY, header: bytes = HEADER) -> list[Record]:
    return list(open_copy(header, key, io.BytesIO(raw)))


@pytest.mark.parametrize("over", [-PIECE_BYTES, -1, 0, 1, PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1])
def test_a_copy_gives_back_every_file_at_every_border(over: int) -> None:
    """Breaks: a key is lost in a copy of just the wrong length."""
    records, rest = list(FILES), PIECE_BYTES + over - sum(6 + len(r.name) + len(r.content) for r in FILES)
    number = 0
    while rest > 0:
        name = f"sessions/{number:032x}"
        content = b"c" * min(4096, max(0, rest - 6 - len(name)))
        records.append(Record(name, content))
        rest -= 6 + len(name) + len(content)
        number += 1
    assert opened(sealed(records)) == records


def test_a_copy_that_was_changed_or_cut_or_joined_is_refused() -> None:
    """Breaks: half of the keys are put back, and nobody hears of the other half."""
    records = [*FILES, *(Record(f"sessions/{number:032x}", b"c" * 4096) for number in range(600))]
    raw, piece = sealed(records), PIECE_BYTES + 16
    assert len(raw) > 2 * piece
    wrong = [b"", raw[:-1], raw[:piece], raw[: 2 * piece], raw[piece:], raw + b"\0", raw + raw]
    wrong += [raw[piece : 2 * piece] + raw[:piece] + raw[2 * piece :], b"\0" + raw[1:]]
    for one in wrong:
        with pytest.raises(Denied, match=r"keys\.copy"):
            opened(one)
    with pytest.raises(Denied, match="passphrase"):
        opened(raw, b"x" * 32)
    with pytest.raises(Denied, match=r"keys\.copy"):
        opened(raw, header=new_header())


@pytest.mark.parametrize("name", ["../../etc/passwd", "sessions/../x", "joined", "sessions/" + "AB" * 16, ""])
def test_a_copy_names_no_other_file(name: str) -> None:
    """Breaks: who knows a passphrase writes where he likes."""
    record = struct.pack("<HI", len(name), 1) + name.encode() + b"x"
    nonce = bytes(8) + b"\1" + bytes(15)
    forged = xchacha20poly1305_encrypt(KEY, nonce, record, HEADER)
    with pytest.raises(Denied, match=r"keys\.copy"):
        opened(forged)


def test_what_is_no_copy_asks_for_no_memory() -> None:
    """Breaks: a wrong file takes the machine's memory before it is refused."""
    for at, value in ((0, 0), (4, 2), (8, 65), (8, 0), (12, 65), (16, 5 << 20), (16, 1)):
        header = bytearray(HEADER)
        width = 4 if at >= 8 else 1
        header[at : at + width] = value.to_bytes(width, "little")
        with pytest.raises(Misuse, match=r"keys\.no_copy"):
            copy_key(bytes(header), "correct horse battery")
    with pytest.raises(Misuse, match=r"keys\.no_copy"):
        copy_key(HEADER[: HEADER_BYTES - 1], "correct horse battery")
    with pytest.raises(Misuse, match=r"keys\.passphrase"):
        copy_key(HEADER, "hunter2")


def test_each_copy_has_a_key_of_its_own() -> None:
    """Breaks: two copies under one passphrase use one nonce for two contents."""
    passphrase = "correct horse battery"
    assert copy_key(HEADER, passphrase) == copy_key(HEADER, passphrase)
    assert copy_key(HEADER, passphrase) != copy_key(new_header(), passphrase)
