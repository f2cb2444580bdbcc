"""Who signs, rotated and revoked, and a trust root that is kept offline: by the real verbs."""

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.machine.waiting import PATIENCE_S

Lucid = Any
"""The `Program` of conftest.py."""
READER = Path(__file__).parents[1] / "independent" / "reader.py"


class System:
    """A running system, and what was carried out of it."""

    def __init__(self, lucid: Lucid, folder: Path) -> None:
        self.lucid, self.data, self.out = lucid, folder / "data", folder / "out"
        self.out.mkdir()
        self.up = lucid.start("up", "--json", data=self.data)
        assert json.loads(self.up.stdout.readline())["status"] == "running"

    def __call__(self, *arguments: str | Path) -> "subprocess.CompletedProcess[str]":
        done: subprocess.CompletedProcess[str] = self.lucid(*map(str, arguments), data=self.data)
        assert "Traceback" not in done.stderr, done.stderr
        return done

    def json(self, *arguments: str | Path) -> Any:
        done = self(*arguments, "--json")
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(done.stdout)

    def record(self, session: str) -> str:
        """Record and carry out a session; the key that signed it."""
        (self.out / "source").write_bytes(session.encode() * 1000)
        assert self.json("record", "--input", self.out / "source", "--session", session)["sealed"]
        self.json("export", session, "--evidence", self.out / session)
        signer: str = self.json("verify", session)["signer"]
        return signer

    def judged(self, session: str, trust: Path) -> tuple[int, str]:
        """What `verify` says of the copy, and prints; the reader that shares no line with it must agree."""
        said = self("verify", self.out / session, "--trust", trust)
        command = [sys.executable, str(READER), str(self.out / session), "--trust", str(trust)]
        read = subprocess.run(command, capture_output=True, text=True, check=False)
        assert read.returncode == said.returncode, read.stdout + said.stdout
        return said.returncode, said.stdout


@pytest.fixture(scope="module")
def system(lucid: Lucid, tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    system = System(lucid, tmp_path_factory.mktemp("signers"))
    yield system
    system.up.send_signal(signal.SIGINT)
    system.up.communicate(timeout=PATIENCE_S)
    assert system.up.returncode == 0


def test_a_signer_counts_for_its_time_and_a_revoked_one_for_nothing(system: System) -> None:
    """Breaks: a stolen key signs evidence for ever, or a rotation makes yesterday's evidence worthless."""
    before, trust = system.out / "before.json", system.out / "trust.json"
    system.json("export", "--trust-file", before)
    first = system.record("first")
    made = system.json("keys", "signer", "rotate")
    second = system.record("second")
    assert made["fingerprint"] == second != first
    told = system.json("export", "--trust-file", trust)
    assert [system.judged(name, trust)[0] for name in ("first", "second")] == [0, 0]
    code, said = system.judged("second", before)
    assert (code, "[signer.unlisted]" in said) == (9, True), "a trust file of before the rotation"

    old, new = system.json("keys", "signer", "list")["signers"]
    assert (old["fingerprint"], new["name"]) == (first, made["name"])
    assert "signs now" in system("keys", "signer", "list").stdout.splitlines()[1]
    refused = system("keys", "signer", "revoke", new["name"], "--yes")
    assert (refused.returncode, "lucid keys signer rotate" in refused.stderr) == (2, True)
    assert system("keys", "signer", "revoke", old["name"]).returncode == 2, "nobody can answer here"
    wrong = system("keys", "signer", "revoke", old["name"], "--since", "2999-01-01", "--yes")
    assert wrong.returncode == 2, "a time that has not been"
    assert system("keys", "signer", "revoke", "nobody", "--yes").returncode == 4
    revoked = system.json("keys", "signer", "revoke", old["name"], "--since", "2026-03-04T09:12Z", "--yes")
    assert revoked["revoked_us"] == 1_772_615_520_000_000
    assert "revoked since 2026-03-04 09:12:00" in system("keys", "signer", "list").stdout

    assert system.json("export", "--trust-file", trust)["root"] == told["root"]
    code, said = system.judged("first", trust)
    assert (code, "[signer.revoked]" in said) == (9, True), said
    assert system.judged("second", trust)[0] == 0
    assert system("verify", "first").returncode == 9, "the installation itself does not trust it either"


def test_a_root_may_be_offline_while_everything_else_goes_on(system: System) -> None:
    """Breaks: the root key must lie beside what a thief takes, or a second root is made in its place."""
    trust, root = system.out / "trust.json", system.data / "keys" / "root.json"
    told = system.json("export", "--trust-file", trust)
    offline = Path(shutil.move(root, system.out / "root.json"))
    system.record("recorded")
    assert system("verify", "recorded").returncode == 0
    system.json("keys", "signer", "rotate")
    refused = system("export", "--trust-file", system.out / "new.json")
    assert refused.returncode == 4
    assert "--root-key FILE" in refused.stderr
    assert not root.exists()
    assert not (system.out / "new.json").exists()
    again = system.json("export", "--trust-file", trust, "--root-key", offline)
    assert again["root"] == told["root"]
    assert again["keys"] > told["keys"], "the new signer is in it"
    assert not root.exists(), "it is used where it is"
    lost = system.json("export", "--trust-file", system.out / "new.json", "--new-root")
    assert lost["root"] != told["root"]
    assert system("export", "--trust-file", trust).returncode == 2, "another root never takes a file's place"
