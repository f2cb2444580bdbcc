"""Key files: they open for one session, one master key, and only whole."""

import pytest

from handlers.crypto.key_file import KEY_FILE_BYTES, build_key_file, open_key_file, read_head
from schemas.errors import Denied
from tests.support.evidence.format_samples import DEK, KEYS, UID

MASTER = bytes(range(32))
FILE = build_key_file(MASTER, 3, UID, DEK)


def refused(masters: dict[int, bytes], uid: bytes, raw: bytes) -> str:
    with pytest.raises(Denied) as caught:
        open_key_file(masters, uid, raw)
    return caught.value.code


def test_a_key_file_opens_for_its_session() -> None:
    """Breaks: no recording could be opened."""
    assert len(FILE) == KEY_FILE_BYTES == 4096
    assert read_head(FILE) == (3, UID, KEYS.dek_id)
    assert open_key_file({1: bytes(32), 3: MASTER}, UID, FILE) == DEK


def test_a_key_file_with_one_changed_sector_opens_nothing() -> None:
    """Breaks: an erasure of which the disk kept 7 of 8 sectors leaves the key."""
    for sector in range(0, KEY_FILE_BYTES, 512):
        at = sector + 511
        changed = FILE[:at] + bytes((FILE[at] ^ 1,)) + FILE[at + 1 :]
        assert refused({3: MASTER}, UID, changed) == "keys.file", sector


@pytest.mark.parametrize("at", [0, 4, 5, 7, 12, 27, 28, 43, 44, 67, 68, 99, 115, 116, 4095])
def test_a_changed_byte_is_refused(at: int) -> None:
    """Breaks: a key file of another session, version or key is taken for this one's."""
    assert refused({3: MASTER}, UID, FILE[:at] + bytes((FILE[at] ^ 1,)) + FILE[at + 1 :]) == "keys.file"


@pytest.mark.parametrize("raw", [b"", FILE[:-1], FILE + b"\0", FILE[:512], bytes(4096)])
def test_a_key_file_of_another_form_is_refused(raw: bytes) -> None:
    """Breaks: half a file, or one that was erased, ends in a traceback."""
    assert refused({3: MASTER}, UID, raw) == "keys.file"


def test_a_key_file_of_another_session_or_master_key_is_refused() -> None:
    """Breaks: files that were swapped open another session's recording."""
    assert refused({3: MASTER}, bytes(16), FILE) == "keys.file"
    assert refused({3: bytes(32)}, UID, FILE) == "keys.file"


def test_a_missing_master_key_is_named() -> None:
    """Breaks: who restores a backup does not learn which key is missing."""
    assert refused({1: MASTER}, UID, FILE) == "keys.kek"


def test_two_key_files_of_one_key_share_nothing() -> None:
    """Breaks: a nonce used twice, or padding that a copy of an older file still has."""
    other = build_key_file(MASTER, 3, UID, DEK)
    assert other[:44] == FILE[:44]
    assert other[44:68] != FILE[44:68]
    assert other[116:] != FILE[116:]
