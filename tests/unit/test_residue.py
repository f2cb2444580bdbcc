"""What is erased by writing a file anew is gone from the old file's blocks, too."""

import os
from pathlib import Path

import pytest

from infra.residue import NATS_MESSAGES, overwriting

SECRET = b"a wrap" * 100


@pytest.fixture
def block(tmp_path: Path) -> Path:
    folder = tmp_path / NATS_MESSAGES.format(stream="KEYS")
    folder.mkdir(parents=True)
    (folder / "1.blk").write_bytes(SECRET)
    return folder / "1.blk"


def test_a_replaced_file_leaves_no_bytes(tmp_path: Path, block: Path) -> None:
    """Breaks: an erased key can be read from the disk, by whoever reads it without its files."""
    with block.open("rb") as old:
        with overwriting(tmp_path, "KEYS"):
            with block.open("ab") as file:
                file.write(b"a fence")
            (block.parent / "new").write_bytes(b"a fence")
            (block.parent / "new").replace(block)
        assert os.pread(old.fileno(), 10_000, 0) == bytes(len(SECRET) + len(b"a fence"))
    assert block.read_bytes() == b"a fence"


def test_a_removed_file_leaves_no_bytes_whatever_happens(tmp_path: Path, block: Path) -> None:
    """Breaks: an erasure that fails half-way leaves what it had erased."""
    with block.open("rb") as old:
        with pytest.raises(FileNotFoundError), overwriting(tmp_path, "KEYS"):
            [path.unlink() for path in (block, block)]
        assert set(old.read()) == {0}


def test_a_file_that_keeps_its_name_keeps_its_bytes(tmp_path: Path, block: Path) -> None:
    """Breaks: erasing one key takes the others."""
    (block.parent / "2.blk").write_bytes(b"another block")
    with overwriting(tmp_path, "KEYS"):
        block.unlink()
    assert (block.parent / "2.blk").read_bytes() == b"another block"


def test_a_server_elsewhere_is_left_alone(tmp_path: Path) -> None:
    """Breaks: an installation whose NATS is a cluster cannot erase at all."""
    with overwriting(tmp_path / "nowhere", "KEYS"):
        pass
