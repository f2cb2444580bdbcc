"""Every row of the tables of exit status in docs/verify.md, with stdout open, closed and full."""

import asyncio
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from handlers.crypto.trust import build_trust
from infra.jetstream import Jet
from infra.nats_server.server import NatsServer
from schemas import subjects
from schemas.events.session import Shredded, stored_bytes
from schemas.format.jcs import jcs
from schemas.format.trust import TrustKey
from streams.event_store import topology
from tests.support.evidence.recorded_session import HOST_PUBLIC, NAME, ROOT, SIGNER, SIGNING, RecordedSession
from tests.support.evidence.tombstones import tombstone
from tests.support.program import forked_lucid
from tests.support.program.exit_situations import SITUATIONS, Call

TABLES = Path(__file__).parents[2] / "docs" / "verify.md"
ROW = re.compile(r"^\| (\d+) \| (\d+) \| (\d+) \|(?: `(\S+)`)? \| (.+) \|$")
ROOT_PUBLIC = ROOT.public_key().public_bytes_raw()


class Row(NamedTuple):
    """What the document says."""

    verb: str
    exit: int
    closed: int
    full: int
    said: str
    when: str


def documented() -> list[Row]:
    rows, verb = [], ""
    for line in TABLES.read_text().splitlines():
        if line.startswith("#"):
            verb = line.removeprefix("### lucid ") if line.startswith("### lucid ") else ""
        elif verb and (match := ROW.match(line)):
            status, closed, full, said, when = match.groups()
            rows.append(Row(verb, int(status), int(closed), int(full), said or "", when))
    return rows


SERVED = ("the installation has no", "the session is not sealed", "the session was destroyed")


def changed(path: Path, at: int = -1) -> None:
    raw = bytearray(path.read_bytes())
    raw[at] = ord("B") if raw[at] == ord("A") else ord("A")  # base64 stays base64
    path.write_bytes(raw)


def listed(
    *,
    signer: bytes = SIGNING.public,
    host: bytes = HOST_PUBLIC,
    host_name: str = "host-1",
    revoked_us: int = 0,
    life_us: int = 2**52,
    signs: Ed25519PrivateKey = ROOT,
) -> bytes:
    """A trust file."""
    span = {"from_us": 0, "until_us": 2**52, "revoked_us": revoked_us}
    keys = [
        TrustKey.model_validate({"key": signer, "role": "signer", "name": "signer-1", **span}),
        TrustKey.model_validate({"key": host, "role": "host", "name": host_name, **span}),
    ]
    return build_trust(keys, serial=1, issued_us=0, root=ROOT_PUBLIC, sign=signs.sign, life_us=life_us)


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Evidence in every condition that a row speaks of. Nothing here is changed by a test."""
    shelf = tmp_path_factory.mktemp("shelf")
    RecordedSession(fragments=6).write(shelf)
    (shelf / "apart").mkdir()
    RecordedSession(lost=(1,)).write(shelf / "apart")
    (shelf / "apart" / "copy").rename(shelf / "lossy")
    conditions = ("strays", "false", "false-manifest", "incomplete", "no-history", "no-manifest")
    conditions += ("secret", "secret-chunk", "linked", "linked-chunks", "folder-for-chunk")
    for name in conditions:
        shutil.copytree(shelf / "copy", shelf / name)
    (shelf / "strays" / "chunks" / ".DS_Store").touch()
    changed(shelf / "false" / "chunks" / "0000000000")
    changed(shelf / "false-manifest" / "manifests" / "1.dsse.json", -50)  # in the signature
    (shelf / "incomplete" / "chunks" / "0000000000").unlink()
    (shelf / "no-history" / "history.ndjson").unlink()
    (shelf / "no-manifest" / "manifests" / "1.dsse.json").unlink()
    first = Path("chunks", "0000000000")
    for name, make in (
        ("secret-chunk", lambda path: path.touch(0)),
        ("linked", lambda path: path.symlink_to(shelf / "copy" / first)),
        ("folder-for-chunk", Path.mkdir),
    ):
        (shelf / name / first).unlink()
        make(shelf / name / first)
    shutil.rmtree(shelf / "linked-chunks" / "chunks")
    (shelf / "linked-chunks" / "chunks").symlink_to(shelf / "copy" / "chunks")
    shutil.copy(shelf / "keys.json", shelf / "secret" / "keys.json")
    (shelf / "empty").mkdir()
    (shelf / "film.mp4").write_bytes(b"\0\0\0\x18ftypisom" + bytes(5000))
    (shelf / "taken").touch()
    trust = (shelf / "trust.json").read_bytes()
    other = jcs({"uid": "0" * 32, "dek_id": "0" * 32, "dek": "0" * 64})
    for name, raw in {
        "secret.json": trust,
        "forged.json": listed(signs=SIGNER),
        "expired.json": listed(life_us=1),
        "unlisted.json": listed(signer=bytes(range(32))),
        "no-host.json": listed(host=bytes(range(32))),
        "renamed-host.json": listed(host_name="host-2"),
        "revoked.json": listed(revoked_us=1),
        "line-end.json": (shelf / "keys.json").read_bytes() + b"\n",
        "other-keys.json": other,
        "tombstone.json": tombstone(SIGNER),
        "false-tombstone.json": tombstone(SIGNER),
    }.items():
        (shelf / name).write_bytes(raw)
    changed(shelf / "false-tombstone.json", 100)
    shelf.chmod(0o777)  # whoever runs without privileges writes here, too
    (shelf / "locked").mkdir(0o555)
    (shelf / "secret.json").chmod(0)
    (shelf / "secret" / "chunks").chmod(0)
    return shelf


class Forked:
    """tests/support/program/forked_lucid.py at work in the shelf."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.number = folder, 0
        self._process = subprocess.Popen(
            [sys.executable, "-P", forked_lucid.__file__, "export", "verify"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def run(self, call: Call, stdout: str, environment: dict[str, str]) -> int:
        self.number += 1
        arguments = [word.replace("{new}", f"new-{self.number}") for word in call.arguments]
        asked = {**asdict(call), "arguments": [*arguments, *self.as_json(call)], "folder": str(self.folder)}
        said = {"stdout": stdout, "environment": {"LUCID_DATA": str(self.folder / "data"), **environment}}
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(asked | said) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def as_json(self, call: Call) -> list[str]:
        return [] if "-" in call.arguments else ["--json"]

    def text(self, name: str) -> str:
        return (self.folder / name).read_bytes().decode(errors="replace")

    def end(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


@pytest.fixture(scope="module")
def forked(shelf: Path) -> Iterator[Forked]:
    forked = Forked(shelf)
    yield forked
    forked.end()


def check(forked: Forked, row: Row, environment: dict[str, str]) -> None:
    """Run every situation of a row, the first of them with every kind of stdout."""
    kinds = {"open": row.exit, "gone": row.closed, "closed": row.closed, "full": row.full}
    for number, call in enumerate(SITUATIONS[row.verb, row.when]):
        for stdout, wanted in kinds.items() if number == 0 else (("open", row.exit),):
            status = forked.run(call, stdout, environment)
            told = forked.text("stderr")
            assert not list(forked.folder.glob(".new-*")), call
            assert (status, "Traceback" in told) == (wanted, False), (call, stdout, told)
            if stdout == "open" and row.said and forked.as_json(call):
                said = json.loads(forked.text("stdout"))
                assert row.said in (said.get("verdict"), said.get("code")), (call, said)
                assert said.get("exit_code", status) == status


def test_every_row_has_its_situations() -> None:
    """Breaks: the document promises an exit status that nobody has tried, or forgets one."""
    rows = documented()
    assert {(row.verb, row.when) for row in rows} == SITUATIONS.keys()
    assert len(rows) == len(SITUATIONS)


@pytest.mark.parametrize(
    "row",
    [row for row in documented() if not row.when.startswith(SERVED)],
    ids=lambda row: f"{row.verb}-{row.when}",
)
def test_an_exit_status_is_the_documented_one(row: Row, forked: Forked) -> None:
    """Breaks: a script takes false evidence for true, because its log was full or nobody read it."""
    check(forked, row, {})


async def test_an_exit_status_of_a_session_is_the_documented_one(
    forked: Forked, jet: Jet, server: NatsServer
) -> None:
    """Breaks: a script takes a session that is not sealed, or not there, for a verdict."""
    await topology.declare(jet, 1 << 30)
    history = RecordedSession(fragments=2).history
    gone = Shredded.model_validate({**json.loads(history[0]), "type": "Shredded", "tombstone": "00" * 32})
    for name, lines in (
        ("open-01", history[:3]),
        ("gone-01", [*history, stored_bytes(gone)]),
    ):
        seq = 0
        for line in lines:
            seq = await jet.append(subjects.lifecycle(name), line.replace(NAME.encode(), name.encode()), seq)
    for row in documented():
        if row.when.startswith(SERVED):
            await asyncio.to_thread(check, forked, row, {"NATS_URL": server.url})
