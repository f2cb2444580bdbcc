"""Every codec with every suite, from a text to the sealed evidence and back."""

import hashlib
import shutil
from collections.abc import Iterator
from functools import partial
from itertools import product
from pathlib import Path

import pytest

from tests.support.program.installation import Installation, at_once, lucid, read_independently, running

CODECS = {"none": 0, "zstd": 1, "lz4": 2, "brotli": 3, "gzip": 4}
SUITES = {"xchacha20-poly1305": 1, "aes-256-gcm": 2}
CHUNKS = 5
PLAIN = b"".join(
    b"%09d window %d moved to %d,%d\n" % (at, at * 7919 % 97, at * 31 % 1920, at * 17 % 1080)
    for at in range(32_000)
)
"""About 1.2 MB of the kind of text that every codec makes smaller."""


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    folder = tmp_path_factory.mktemp("codecs")
    (folder / "plain").write_bytes(PLAIN)
    with running(folder / "data") as installation:
        installation.record("-", "first", stdin=b"so that the host is known")
        installation.json("export", "--trust-file", folder / "trust.json")
        yield installation
    shutil.rmtree(folder)


@pytest.mark.parametrize(("codec", "suite"), [*product(CODECS, SUITES)])
def test_a_text_comes_back_whatever_sealed_it(
    codec: str, suite: str, system: Installation, tmp_path: Path
) -> None:
    """Breaks: a setting that is offered makes evidence that cannot be read."""
    name = f"{codec}-{suite}"
    chosen = {"COMPRESSION_ALGORITHM": codec, "LUCID_ENCRYPTION_SUITE": suite, "CHUNK_SIZE_MB": "0.25"}
    said = system.record(system.data.parent / "plain", name, **chosen)
    assert (said["settings"]["codec"], said["settings"]["suite"]) == (CODECS[codec], SUITES[suite])
    assert said["recorded"] >= CHUNKS

    copy, trust = tmp_path / "copy", system.data.parent / "trust.json"
    told = system.json("export", name, "--evidence", copy, "--with-keys", "--out", tmp_path / "out")
    assert told["sha256"] == hashlib.sha256(PLAIN).hexdigest()
    assert (tmp_path / "out").read_bytes() == PLAIN

    chunks = sorted((copy / "chunks").iterdir())[: said["recorded"]]
    assert [chunk.read_bytes()[5:7] for chunk in chunks] == [bytes([SUITES[suite], CODECS[codec]])] * len(
        chunks
    ), "suite and codec as the header of a sealed chunk says"
    sealed = sum(chunk.stat().st_size for chunk in chunks)
    assert (sealed > len(PLAIN)) if codec == "none" else (sealed < len(PLAIN) / 2)

    asked = ("verify", copy, "--trust", trust, "--strict", "--json")
    reading = ("--trust", trust, "--keys", copy / "keys.json", "--out", tmp_path / "read", "--strict")
    verified, read = at_once(
        partial(lucid, *asked, data=tmp_path / "none", cwd=tmp_path),
        partial(read_independently, copy, *reading, cwd=tmp_path),
    )
    assert (verified.status, verified.json["verdict"], verified.json["opened"]) == (0, "true", True)
    assert read.status == 0, str(read)
    assert (tmp_path / "read").read_bytes() == PLAIN
