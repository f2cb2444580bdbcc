"""The audit chain through the real program: looks of the command line, lists, exports, verification."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.program.running import Lucid, ok, running

READER = Path(__file__).parents[1] / "independent" / "reader_audit.py"


@pytest.fixture(scope="module")
def data(lucid: Lucid, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The data directory of a system that runs, with one sealed session."""
    for data in running(lucid, tmp_path_factory.mktemp("audited") / "data"):
        source = data.parent / "source"
        source.write_bytes(b"a recording" * 1000)
        ok(lucid, "record", "--input", str(source), "--session", "seen-1", data=data)
        yield data


def test_every_export_is_in_the_chain_with_its_reason_and_its_outcome(
    lucid: Lucid, data: Path, tmp_path: Path
) -> None:
    """Breaks: a recording or its key leaves the installation, and no line says so."""
    ok(lucid, "export", "seen-1", "--out", str(tmp_path / "back"), "--reason", "ticket 7", data=data)
    ok(lucid, "export", "seen-1", "--evidence", str(tmp_path / "copy"), "--with-keys", data=data)
    assert lucid("export", "seen-1", "--out", str(tmp_path / "back"), data=data).returncode == 2  # it exists
    ok(lucid, "replay", "seen-1", data=data)
    found = ok(lucid, "audit", "list", "--session", "seen-1", data=data)["entries"][::-1]
    rows = [(one["action"], one["phase"], one["outcome"], one["code"], one["reason"]) for one in found]
    looks = [row for row in rows if row[0] in ("export", "export_keys", "replay")]
    assert looks == [
        ("export", "asked", "", "", "ticket 7"),
        ("export", "outcome", "ok", "", ""),
        ("export_keys", "asked", "", "", ""),
        ("export_keys", "outcome", "ok", "", ""),
        ("export", "asked", "", "", ""),
        ("export", "outcome", "refused", "export.exists", ""),
        ("replay", "asked", "", "", ""),
        ("replay", "outcome", "ok", "", ""),
    ]
    first = next(one for one in found if one["action"] == "export")
    assert str(tmp_path / "back") in first["detail"]
    assert len(first["uid"]) == 32
    assert not (data / "logs" / "audit.ndjson").exists()


def test_an_exported_chain_is_verified_anywhere_and_every_change_of_it_is_found(
    lucid: Lucid, data: Path, tmp_path: Path
) -> None:
    """Breaks: an auditor takes a file home, and it proves nothing; or a forged one passes."""
    ok(lucid, "export", "seen-1", "--out", str(tmp_path / "back"), data=data)
    chain, trust, elsewhere = tmp_path / "audit.ndjson", tmp_path / "trust.json", tmp_path / "no-data"
    told = ok(lucid, "audit", "export", "--out", str(chain), data=data)
    ok(lucid, "export", "--trust-file", str(trust), data=data)
    lines = chain.read_bytes().splitlines()
    assert told["entries"] == len(lines) >= 2
    assert subprocess.run([sys.executable, READER, chain], check=False).returncode == 0
    whole = ok(lucid, "audit", "verify", str(chain), "--trust", str(trust), data=elsewhere)
    assert (whole["true"], whole["signed"]) == (True, len(lines))
    assert lucid("audit", "verify", str(chain), data=elsewhere).returncode == 9
    assert "holds" in lucid("audit", "verify", data=data).stdout
    older = ok(lucid, "audit", "verify", "--head", f"{chain}.head", data=data)
    assert older["true"]
    for changed in (
        [*lines[:-1], lines[-1].replace(b'"action":"', b'"action":"x')],
        lines[1:],
        lines[:-1],
        [lines[0], *lines],
        lines[::-1],
    ):
        chain.write_bytes(b"".join(line + b"\n" for line in changed))
        said = lucid("audit", "verify", str(chain), "--trust", str(trust), "--json", data=elsewhere)
        assert said.returncode == 3, said.stdout
        assert json.loads(said.stdout)["findings"]
    assert lucid("audit", "verify", str(tmp_path / "absent"), data=elsewhere).returncode == 4
    chain.write_bytes(b"\x00" * 100_000)
    assert lucid("audit", "verify", str(chain), "--trust", str(trust), data=elsewhere).returncode == 3


@pytest.mark.parametrize(("name", "member"), [("ocsf", "class_uid"), ("ecs", "@timestamp")])
def test_a_siem_gets_its_own_names(lucid: Lucid, data: Path, tmp_path: Path, name: str, member: str) -> None:
    """Breaks: the security team cannot read the log where it reads all others."""
    ok(lucid, "export", "seen-1", "--out", str(tmp_path / "back"), data=data)
    said = lucid("audit", "export", "--as", name, data=data)
    assert said.returncode == 0, said.stderr
    lines = [json.loads(line) for line in said.stdout.splitlines()]
    assert len(lines) >= 2
    assert all(member in line for line in lines)


def test_a_list_goes_on_where_another_ended(lucid: Lucid, data: Path, tmp_path: Path) -> None:
    """Breaks: an auditor who reads page by page misses the entry between two pages."""
    ok(lucid, "export", "seen-1", "--out", str(tmp_path / "back"), data=data)
    numbers, after = [], 0
    while True:
        found = ok(lucid, "audit", "list", "--limit", "3", "--after", str(after), data=data)
        numbers += [one["number"] for one in found["entries"]]
        after = found["next"]
        if not after:
            break
    assert numbers == list(range(numbers[0], 0, -1))


def test_an_export_waits_for_a_second_person_where_policy_asks_for_one(
    lucid: Lucid, data: Path, tmp_path: Path
) -> None:
    """Breaks: policy asks for four eyes, and the command line looks with two."""
    policy = {"ACCESS_APPROVAL_REQUIRED": "export", "ACCESS_REASON_REQUIRED": "export"}
    alice, bob = (
        {"LUCID_TOKEN": lucid("token", "--subject", who, "--role", "ADMIN", data=data).stdout.strip()}
        for who in ("alice", "bob")
    )
    back, reason = str(tmp_path / "back"), ("--reason", "ticket 7")

    def refused(*more: str) -> str:
        said = lucid("export", "seen-1", "--out", back, *more, "--json", data=data, **policy, **alice)
        assert not (tmp_path / "back").exists()
        return str(json.loads(said.stdout)["code"])

    assert refused() == "access.reason"
    assert refused(*reason) == "access.needed"
    made = ok(lucid, "access", "request", "seen-1", "--look", "export", *reason, data=data, **alice)
    assert refused(*reason) == "access.unanswered"
    own = lucid("access", "approve", made["id"], "--json", data=data, **alice)
    assert (own.returncode, json.loads(own.stdout)["code"]) == (6, "access.self")
    waiting = ok(lucid, "access", "list", "--waiting", data=data, **bob)["requests"]
    assert [one["id"] for one in waiting] == [made["id"]]
    assert "alice wants to export seen-1: ticket 7" in lucid("access", "list", data=data, **bob).stdout
    ok(lucid, "access", "approve", made["id"], data=data, **bob)
    ok(lucid, "export", "seen-1", "--out", back, *reason, data=data, **policy, **alice)
    assert lucid("access", "refuse", made["id"], data=data, **bob).returncode == 0
    (tmp_path / "back").unlink()
    assert refused(*reason) == "access.ended"
