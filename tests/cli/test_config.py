"""`lucid config`, run as people run it."""

import json
from pathlib import Path
from typing import Any

import pytest

from schemas.config.settings import VARIABLES

Lucid = Any
"""The `Program` of conftest.py."""
SECRET = "kilimanjaro horse battery"


def test_config_shows_every_setting_and_where_it_came_from(lucid: Lucid, tmp_path: Path) -> None:
    """Breaks: a setting that has no effect is searched for in three places."""
    file = tmp_path / "lucid.yaml"
    file.write_text(f"CHUNK_SIZE_MB: 4\nHOST_RETURN_MAX: 36h\nENCRYPTION_KEY: {SECRET}\n")
    here = {"data": tmp_path / "data", "LUCID_CONFIG": str(file), "LUCID_CHUNK_SIZE_MB": "2"}
    said = lucid("config", "--json", **here)
    assert said.returncode == 0, said.stderr
    told = json.loads(said.stdout)
    assert told["file"] == str(file)
    found = {one["name"]: (one["value"], one["from"]) for one in told["settings"]}
    assert list(found) == [variable.name for variable in VARIABLES]
    assert found["CHUNK_SIZE_MB"] == ("2", "LUCID_CHUNK_SIZE_MB in the environment")
    assert found["HOST_RETURN_MAX"] == ("36h", f"HOST_RETURN_MAX in {file}")
    assert found["CHUNK_STORAGE_PATH"] == (str(tmp_path / "data" / "chunks"), "default")
    assert found["COMPRESSION_LEVEL"] == ("3", "default")
    assert found["ENCRYPTION_KEY"][0] == "***"
    people = lucid("config", **here)
    assert f"the environment over {file} over defaults" in people.stderr
    assert "LUCID_CHUNK_SIZE_MB in the environment" in people.stdout
    assert SECRET not in said.stdout + people.stdout + people.stderr
    assert not (tmp_path / "data").exists(), "looking makes nothing"


def test_a_template_can_be_taken_as_it_is(
    lucid: Lucid, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks: the first file that an operator makes is refused."""
    monkeypatch.delenv("SCRUB_MB_PER_S")
    file = tmp_path / "lucid.yaml"
    file.write_text(lucid("config", "template", "--yaml", data=tmp_path).stdout)
    said = lucid("config", "--json", data=tmp_path, LUCID_CONFIG=str(file))
    assert said.returncode == 0, said.stderr
    assert {one["from"] for one in json.loads(said.stdout)["settings"]} == {
        *("default", "LUCID_DATA in the environment")
    }
    wrong = lucid("config", data=tmp_path, LUCID_CONFIG=str(file), CHUNK_SIZE_MB="17")
    assert wrong.returncode == 2
    assert "CHUNK_SIZE_MB in the environment is '17'; allowed: 0.25 to 16 MiB" in wrong.stderr


@pytest.mark.parametrize(
    ("words", "url"),
    [
        ("config", "nats://alice:hunter2@db-1.example,nats://alice:hunter2@db-2.example"),
        ("config", "http://alice:hunter2@db.example"),
        ("sessions list", "nats://alice:hunter2@127.0.0.1:1"),
        ("sessions list", "nats://alice:hunter2@127.0.0.1:1,nats://alice:hunter2@127.0.0.1:2"),
    ],
)
def test_a_password_in_a_url_is_shown_nowhere(lucid: Lucid, tmp_path: Path, words: str, url: str) -> None:
    """Breaks: who asks for help with their settings hands out the password of their NATS."""
    said = lucid(*words.split(), data=tmp_path, NATS_URL=url, WAIT_START="0")
    shown = said.stdout + said.stderr
    assert "hunter" not in shown
    assert "Traceback" not in shown
    assert "NATS" in shown


def test_config_shows_what_one_role_sees_and_in_which_order(lucid: Lucid, tmp_path: Path) -> None:
    """Breaks: of three places for a setting, nobody can say which one a service obeys."""
    for name, text in (("all", "SHARDS: 2\nCHUNK_SIZE_MB: 4"), ("api", '{"SHARDS": 4}')):
        (tmp_path / name).write_text(text)
    here = {"LUCID_CONFIG": str(tmp_path / "all"), "API_CONFIG_PATH": str(tmp_path / "api"), "PORT": "8080"}
    told = json.loads(lucid("config", "--role", "api", "--json", data=tmp_path / "data", **here).stdout)
    found = {one["name"]: (one["value"], one["from"]) for one in told["settings"]}
    assert told["order"] == ["environment", str(tmp_path / "api"), str(tmp_path / "all"), "defaults"]
    assert found["SHARDS"] == ("4", f"SHARDS in {tmp_path / 'api'}")
    assert found["CHUNK_SIZE_MB"] == ("4", f"CHUNK_SIZE_MB in {tmp_path / 'all'}")
    assert found["SESSION_API_PORT"] == ("8080", "PORT in the environment")
    people = lucid("config", "--role", "api", data=tmp_path / "data", **here)
    assert f"the environment over {tmp_path / 'api'} over {tmp_path / 'all'} over defaults" in people.stderr
    refused = lucid("config", "--role", "kitchen", data=tmp_path / "data")
    assert (refused.returncode, "allowed: worker, conductor" in refused.stderr) == (2, True)
