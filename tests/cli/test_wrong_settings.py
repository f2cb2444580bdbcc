"""A wrong setting stops `lucid up` and `lucid serve ROLE`, run as people run them, with one clear line."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

Lucid = Any
"""The `Program` of conftest.py."""
STARTS = ("up", "serve conductor", "serve worker", "serve storage")
SECRET = "kilimanjaro-hunter2"

IN = " in the environment is "
WRONG: dict[str, tuple[str, str]] = {
    "MAX_CONCURRENT_SESSIONS=many": ("MAX_CONCURRENT_SESSIONS", "'many'; allowed: 1 to 100000"),
    "SHARDS=3": ("SHARDS", "'3'; allowed: 0, 1, 2, 4, 8, 16"),
    "LUCID_CHUNK_SIZE_MB=17": ("LUCID_CHUNK_SIZE_MB", "'17'; allowed: 0.25 to 16 MiB"),
    "HEALTH_CHECK_INTERVAL=soon": ("HEALTH_CHECK_INTERVAL", "'soon'; allowed: 1s to 1h, such as 30, 30s"),
    "LUCID_MANIFEST_HASH_ALGORITHM=md5": ("LUCID_MANIFEST_HASH_ALGORITHM", "'md5'; allowed: blake3"),
    "COMPRESSION_ALGORITHM=gzip COMPRESSION_LEVEL=12": ("COMPRESSION_LEVEL", "12; allowed for gzip: 1 to 9"),
    "SESSION_API_PORT=99999": ("SESSION_API_PORT", "'99999'; allowed: 0 to 65535"),
    "MONGODB_URL=postgres://db": ("MONGODB_URL", "'postgres://db': it begins with neither mongodb://"),
    f"NATS_URL=http://lucid:{SECRET}@db": ("NATS_URL", "***: http:// is not known; allowed: nats://"),
    f"SECRET_KEY={SECRET}": ("SECRET_KEY", "***; allowed: 32 characters or more"),
    "BIND_ADDRESS=eth0": ("BIND_ADDRESS", "'eth0'; allowed: an IP address"),
    "METRICS_ENABLED=perhaps": ("METRICS_ENABLED", "'perhaps'; allowed: true, false"),
}
"""By variables as they are set: the one that is wrong, and the end of its line."""
MORE_WRONG = {
    "CHUNK_SIZE_MB=1 LUCID_CHUNK_SIZE_MB=2": "CHUNK_SIZE_MB and LUCID_CHUNK_SIZE_MB mean the same and differ",
    "TLS_CERT_FILE=/c": "TLS_CERT_FILE is set and TLS_KEY_FILE is not; both or none",
}
LINES = {given: f"{name}{IN}{end}" for given, (name, end) in WRONG.items()} | MORE_WRONG


def said_once(lucid: Lucid, start: str, data: Path, environ: dict[str, str]) -> str:
    """The one line, unwrapped, that a start says that ends with exit status 2."""
    said = lucid(*start.split(), data=data, WAIT_START="0", **{"NATS_URL": "", **environ})
    assert (said.returncode, said.stdout) == (2, ""), said.stderr
    assert said.stderr.startswith("lucid: ")
    assert said.stderr.count("lucid: ") == 1
    assert SECRET not in said.stderr
    return re.sub(r"\s+", " ", said.stderr)


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize(("given", "line"), LINES.items(), ids=[given.split("=")[0] for given in LINES])
def test_a_wrong_value_stops_the_start_with_one_line_and_exit_status_2(
    lucid: Lucid, tmp_path: Path, start: str, given: str, line: str
) -> None:
    """Breaks: a service starts with another setting than the written one, or ends without a reason."""
    environ = dict(pair.split("=", 1) for pair in given.split())
    assert line in said_once(lucid, start, tmp_path / "data", environ)
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        *(("LUCID_MANIFEST_PATH", "manifests"), ("CHUNK_STORAGE_PATH", "chunks")),
        *(("TEMP_STORAGE_PATH", "temp"), ("SESSION_STORAGE_PATH", "nats")),
    ],
)
def test_a_path_that_is_no_folder_stops_the_start(
    lucid: Lucid, tmp_path: Path, name: str, folder: str
) -> None:
    """Breaks: the first chunk of the first session finds out that it cannot be stored."""
    (tmp_path / folder).write_text("")
    line = said_once(lucid, "up", tmp_path / "data", {name: str(tmp_path / folder)})
    assert f"{name}: {tmp_path / folder} is not a folder" in line


@pytest.mark.parametrize("start", STARTS)
def test_every_folder_that_cannot_be_used_is_told_at_once(lucid: Lucid, tmp_path: Path, start: str) -> None:
    """Breaks: an operator mends one folder, starts, and is told of the next one."""
    (tmp_path / "file").write_text("")
    wrong = {name: str(tmp_path / "file") for name in ("CHUNK_STORAGE_PATH", "LUCID_MANIFEST_PATH")}
    said = lucid(*start.split(), data=tmp_path / "data", NATS_URL="", WAIT_START="0", **wrong)
    assert said.returncode == 2
    assert [name for name in wrong if f"lucid: {name}:" in said.stderr] == [*wrong]


def test_a_certificate_that_is_none_stops_the_start(lucid: Lucid, tmp_path: Path) -> None:
    """Breaks: a service is up, and every client is refused."""
    for name in ("cert", "key"):
        (tmp_path / name).write_text("no PEM")
    environ = {"TLS_CERT_FILE": str(tmp_path / "cert"), "TLS_KEY_FILE": str(tmp_path / "key")}
    assert "are no certificate chain with its private key" in said_once(
        lucid, "up", tmp_path / "data", environ
    )
    (tmp_path / "cert").unlink()
    assert "TLS_CERT_FILE: " in said_once(lucid, "up", tmp_path / "data", environ)


@pytest.mark.parametrize("text", ["SHARD: 4", '{"SHARDS": 3}', "- SHARDS"])
def test_a_wrong_file_stops_the_start(lucid: Lucid, tmp_path: Path, text: str) -> None:
    """Breaks: a typing error in the file silently gives the default."""
    (tmp_path / "file").write_text(text)
    line = said_once(lucid, "serve worker", tmp_path / "data", {"LUCID_CONFIG": str(tmp_path / "file")})
    assert str(tmp_path / "file") in line


def test_production_is_refused_with_a_line_for_each_thing_that_it_lacks(lucid: Lucid, tmp_path: Path) -> None:
    """Breaks: evidence is sealed in production under a key that was made on the side."""
    environ = {"LUCID_ENV": "production", "NATS_URL": f"nats://u:{SECRET}@127.0.0.1:4222"}
    said = lucid("serve", "conductor", data=tmp_path / "data", WAIT_START="0", **environ)
    assert said.returncode == 2
    lines = [
        re.match(r"lucid: (\w+) (is not set|is on this machine)", line) for line in said.stderr.splitlines()
    ]
    found = {(line[1], line[2]) for line in lines if line}
    assert found >= {
        ("NATS_URL", "is on this machine"),
        ("MONGODB_URL", "is not set"),
        ("ENCRYPTION_KEY", "is not set"),
    }
    assert SECRET not in said.stderr


def test_a_doubtful_name_and_a_variable_without_effect_are_warned_about(lucid: Lucid, tmp_path: Path) -> None:
    """Breaks: an operator believes for months that a mistyped limit holds."""
    doubtful = {"CHUNK_SIZ_MB": "4", "REDIS_URL": "redis://cache", "NATS_URL": "nats://127.0.0.1:1"}
    said = lucid("serve", "worker", data=tmp_path / "data", WAIT_START="0", **doubtful)
    assert said.returncode == 7
    told = [json.loads(line) for line in said.stderr.splitlines() if line.startswith("{")]
    named = {(one["event"], one["name"], one.get("nearest")) for one in told if "name" in one}
    assert ("variable_unknown", "CHUNK_SIZ_MB", "CHUNK_SIZE_MB") in named
    assert ("variable_without_effect", "REDIS_URL", None) in named
    told = lucid("config", data=tmp_path / "data", **doubtful)
    assert told.returncode == 0
    assert "did you mean CHUNK_SIZE_MB?" in told.stderr
    assert "REDIS_URL: accepted, without effect" in told.stderr
