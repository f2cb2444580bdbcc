"""The examples of docs/examples, run as their first line says, on a real system."""

import ast
import base64
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from blake3 import blake3

from tests.support.program.installation import WAIT_S, Done, Installation, clean, run, running

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
FILM = bytes(range(251)) * 12_000
LONGEST_HOST = 30
"""Lines that a host takes, without its docstring: the page of examples promises it."""


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    with running(tmp_path_factory.mktemp("examples") / "data", CHUNK_SIZE_MB="1") as installation:
        yield installation


def example(system: Installation, name: str, *arguments: str | Path, stdin: bytes | None = None) -> Done:
    command = [sys.executable, str(EXAMPLES / name), *map(str, arguments)]
    return run(command, clean(LUCID_DATA=str(system.data)), system.data.parent, stdin)


@pytest.fixture(scope="module")
def copy(system: Installation) -> tuple[Path, Path, str]:
    """What record.py sent and follow.py saw, exported: evidence copy, trust file, root fingerprint."""
    follower = subprocess.Popen(
        [sys.executable, str(EXAMPLES / "follow.py"), "example"],
        env=clean(LUCID_DATA=str(system.data)),
        stdout=subprocess.PIPE,
    )
    try:
        done = example(system, "record.py", "example", stdin=FILM)
        assert (done.status, str(len(FILM)) in done.out) == (0, True), str(done)
        seen, _ = follower.communicate(timeout=WAIT_S)
    finally:
        follower.kill()
    shown = system.until_sealed("example")
    lines = [json.loads(line) for line in seen.splitlines()]
    assert sorted(line["chunk"] for line in lines) == list(range(shown["recorded"]))
    assert follower.returncode == 0
    evidence, trust = system.data.parent / "evidence", system.data.parent / "trust.json"
    system.json("export", "example", "--evidence", evidence, "--trust-file", trust)
    for line in lines:
        assert len((evidence / "chunks" / f"{line['chunk']:010}").read_bytes()) == line["sealed_bytes"]
    signed = json.loads(base64.b64decode(json.loads(trust.read_bytes())["payload"]))
    return evidence, trust, blake3(bytes.fromhex(signed["root"])).hexdigest()


def test_a_host_records_a_follower_sees_every_chunk_and_a_verifier_calls_it_true(
    system: Installation, copy: tuple[Path, Path, str]
) -> None:
    """Breaks: the code that newcomers copy first does not work."""
    evidence, trust, root = copy
    done = example(system, "verify.py", evidence, trust, root)
    assert (done.status, done.err) == (0, ""), str(done)
    assert example(system, "verify.py", evidence, trust, "00" * 32).status == 3


@pytest.mark.parametrize("what", ["chunks/0000000000", "manifests/1.dsse.json", "history.ndjson"])
def test_the_verifier_calls_a_changed_copy_false(
    system: Installation, copy: tuple[Path, Path, str], what: str
) -> None:
    """Breaks: the verifier that newcomers copy accepts anything."""
    evidence, trust, root = copy
    path = evidence / what
    true = path.read_bytes()
    for at in (0, len(true) // 3, len(true) // 2):
        path.write_bytes(true[:at] + bytes([true[at] ^ 1]) + true[at + 1 :])
        assert example(system, "verify.py", evidence, trust, root).status == 3, at
    path.unlink()
    assert example(system, "verify.py", evidence, trust, root).status == 3
    path.write_bytes(true)
    assert example(system, "verify.py", evidence, trust, root).status == 0


def test_the_verifier_imports_nothing_of_ours_and_a_host_takes_30_lines() -> None:
    """Breaks: the example proves only that we agree with ourselves; or it hides how little a host needs."""
    imported = set()
    for node in ast.walk(ast.parse((EXAMPLES / "verify.py").read_text())):
        if isinstance(node, ast.ImportFrom):
            imported.add((node.module or "").split(".")[0])
        elif isinstance(node, ast.Import):
            imported |= {name.name.split(".")[0] for name in node.names}
    assert imported - sys.stdlib_module_names == {"blake3", "cryptography", "rfc8785"}
    host = (EXAMPLES / "record.py").read_text()
    code = ast.get_docstring(ast.parse(host), clean=False)
    assert code is not None
    assert len(host.splitlines()) - len(code.splitlines()) <= LONGEST_HOST
