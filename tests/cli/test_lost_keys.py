"""A data directory whose keys/ is not its own: what the real verbs say, and that they make nothing."""

import json
import os
import shutil
import signal
import stat
from pathlib import Path
from typing import Any

import pytest

from tests.support.machine.waiting import PATIENCE_S

Lucid = Any
"""The `Program` of conftest.py."""


@pytest.fixture(scope="module")
def data(lucid: Lucid, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data directory of an installation that has run."""
    data: Path = tmp_path_factory.mktemp("lost") / "data"
    up = lucid.start("up", "--json", data=data)
    assert json.loads(up.stdout.readline())["status"] == "running"
    up.send_signal(signal.SIGINT)
    up.communicate(timeout=PATIENCE_S)
    assert up.returncode == 0
    return data


def said_of(done: Any) -> str:
    """All that it said, without line ends."""
    return " ".join((done.stdout + done.stderr).split())


def test_a_lost_keys_folder_refuses_the_start_and_is_never_made_anew(lucid: Lucid, data: Path) -> None:
    """Breaks: an unmounted disk gets new keys, and what they seal is lost when it returns."""
    keys, aside = data / "keys", data.parent / "aside"
    keys.rename(aside)
    for verb in (("up", "--json"), ("demo", "--seconds", "1"), ("doctor",)):
        done = lucid(*verb, data=data, cwd=data.parent)
        assert done.returncode == 6, said_of(done)
        assert "keys is missing or empty" in said_of(done)
        assert "put keys/ back from its copy" in said_of(done)
        assert "Traceback" not in done.stderr
    assert not keys.exists()
    aside.rename(keys)
    assert lucid("doctor", data=data).returncode == 0


def test_a_copy_puts_lost_keys_back_and_nothing_else_starts_them(
    lucid: Lucid, data: Path, tmp_path: Path
) -> None:
    """Breaks: a disk fails, and with it every recording is lost for good."""
    phrase, keys = tmp_path / "phrase", data / "keys"
    phrase.write_text("kilimanjaro horse battery\n")
    given = ("--passphrase-file", str(phrase))
    up = lucid.start("up", "--json", data=data)
    assert json.loads(up.stdout.readline())["status"] == "running"
    assert "there is no copy of keys/" in said_of(lucid("doctor", data=data))
    made = lucid("keys", "copy", str(tmp_path), *given, "--label", "one", "--json", data=data)
    assert made.returncode == 0, said_of(made)
    copy = Path(json.loads(made.stdout)["file"])
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    assert "one, made" in said_of(lucid("doctor", data=data))
    refused = lucid("keys", "restore", str(copy), *given, data=data)
    assert refused.returncode == 7, "what runs would use half of it"
    lucid("keys", "signer", "rotate", data=data)
    assert "lacks keys that were made after it" in said_of(lucid("doctor", data=data))
    made = lucid("keys", "copy", str(tmp_path / "two"), *given, "--json", data=data)
    assert made.returncode == 0, said_of(made)
    up.send_signal(signal.SIGINT)
    up.communicate(timeout=PATIENCE_S)
    shutil.rmtree(keys)
    phrase.write_text("kilimanjaro horse cattery\n")
    assert lucid("keys", "restore", str(tmp_path / "two"), *given, data=data).returncode == 6
    phrase.write_text("kilimanjaro horse battery\n")
    assert lucid("keys", "restore", str(phrase), *given, data=data).returncode == 2
    assert lucid("keys", "restore", str(tmp_path / "none"), *given, data=data).returncode == 4
    assert not keys.exists()
    put_back = lucid("keys", "restore", str(tmp_path / "two"), *given, data=data)
    assert put_back.returncode == 0, said_of(put_back)
    up = lucid.start("up", "--json", data=data)
    assert json.loads(up.stdout.readline())["status"] == "running"
    up.send_signal(signal.SIGINT)
    up.communicate(timeout=PATIENCE_S)
    assert up.returncode == 0


def test_keys_without_their_log_refuse_the_start(lucid: Lucid, data: Path, tmp_path: Path) -> None:
    """Breaks: names and counters are used twice, under the keys of the first time."""
    shutil.copytree(data / "keys", tmp_path / "data" / "keys")
    for verb in ("up", "doctor"):
        done = lucid(verb, data=tmp_path / "data")
        assert done.returncode == 6, said_of(done)
        assert "a log that is not here" in said_of(done)
        assert "move keys/ away" in said_of(done)


def test_a_wrong_encryption_key_ends_the_start(lucid: Lucid, tmp_path: Path) -> None:
    """Breaks: sessions are wrapped under a typing mistake, and nobody opens them again."""
    data = tmp_path / "data"
    up = lucid.start("up", "--json", data=data, ENCRYPTION_KEY="kilimanjaro horse battery")
    assert json.loads(up.stdout.readline())["status"] == "running"
    up.send_signal(signal.SIGINT)
    up.communicate(timeout=PATIENCE_S)
    for wrong in ({"ENCRYPTION_KEY": "kilimanjaro horse cattery"}, {}):
        done = lucid("up", data=data, **wrong)
        assert done.returncode == 6, said_of(done)
        assert "set ENCRYPTION_KEY to its earlier value" in said_of(done)


def test_moved_keys_are_found_by_the_setting_that_the_command_names(
    lucid: Lucid, data: Path, tmp_path: Path
) -> None:
    """Breaks: after keys/ moved to another disk nothing starts, and nobody knows why."""
    new = tmp_path / "elsewhere" / "keys"
    up = lucid.start("up", "--json", data=data)
    assert json.loads(up.stdout.readline())["status"] == "running"
    refused = lucid("keys", "move", str(new), data=data)
    assert refused.returncode == 7, "what runs would find its keys overwritten"
    up.send_signal(signal.SIGINT)
    up.communicate(timeout=PATIENCE_S)
    done = lucid("keys", "move", str(new), "--json", data=data)
    assert done.returncode == 0, said_of(done)
    moved = json.loads(done.stdout)
    assert (moved["from"], moved["to"]) == (str(data / "keys"), str(new))
    assert moved["setting"] == {"KEYS_PATH": str(new)}
    assert moved["resumed"] is False
    again = lucid("keys", "move", str(new), data=data)
    assert again.returncode == 0, said_of(again)
    assert "proven:" not in said_of(again), "it did not see what the first call overwrote"
    for verb in ("up", "doctor"):
        left = lucid(verb, data=data)
        assert left.returncode == 6, said_of(left)
        assert f"set KEYS_PATH={new}" in said_of(left)
    up = lucid.start("up", "--json", data=data, **moved["setting"])
    assert json.loads(up.stdout.readline())["status"] == "running"
    up.send_signal(signal.SIGINT)
    up.communicate(timeout=PATIENCE_S)
    assert up.returncode == 0
    assert lucid("doctor", data=data, **moved["setting"]).returncode == 0
    back = lucid("keys", "move", str(data / "keys"), data=data, **moved["setting"])
    assert back.returncode == 0, said_of(back)
    assert f"set KEYS_PATH={data / 'keys'}" in said_of(back)
    assert lucid("doctor", data=data).returncode == 0


def test_doctor_tells_of_the_mirror_and_a_new_disk_is_filled_by_command(lucid: Lucid, tmp_path: Path) -> None:
    """Breaks: the second disk is the first one, or is not mounted, and nobody hears of it before the loss."""
    data, mirror = tmp_path / "data", tmp_path / "mirror"
    both = {"LUCID_KEYS_MIRROR": str(mirror)}

    def runs() -> None:
        up = lucid.start("up", "--json", data=data, **both)
        assert json.loads(up.stdout.readline())["status"] == "running"
        up.send_signal(signal.SIGINT)
        up.communicate(timeout=PATIENCE_S)
        assert up.returncode == 0

    runs()
    told = said_of(lucid("doctor", data=data, **both))
    assert "is on the same disk as keys/" in told
    shutil.rmtree(data / "keys")
    for verb in ("up", "doctor"):
        done = lucid(verb, data=data, **both)
        assert done.returncode == 6, said_of(done)
        assert "lucid keys mirror" in said_of(done)
    assert lucid("keys", "mirror", data=data).returncode == 2, "the setting names it"
    done = lucid("keys", "mirror", "--json", data=data, **both)
    assert done.returncode == 0, said_of(done)
    assert json.loads(done.stdout)["filled"] == str(data / "keys")
    runs()
    alone = lucid("up", data=data)
    assert alone.returncode == 6
    assert "lucid keys mirror --end" in said_of(alone)
    assert lucid("keys", "mirror", "--end", data=data, **both).returncode == 2, "it asks"
    assert lucid("keys", "mirror", "--end", "--yes", data=data, **both).returncode == 0
    assert not list(mirror.glob("*"))
    both.clear()
    runs()


def test_an_interrupted_move_is_given_up_by_one_command(lucid: Lucid, data: Path, tmp_path: Path) -> None:
    """Breaks: the new disk is gone, nothing starts, and a script cannot tell what to do."""
    (data / "keys" / "moving").write_text(str(tmp_path / "new disk"))
    refused = lucid("up", "--json", data=data)
    assert refused.returncode == 6
    assert f"lucid keys move '{tmp_path / 'new disk'}' (or --undo)" in said_of(refused)
    undone = lucid("keys", "move", "--undo", "--json", data=data)
    assert undone.returncode == 0, said_of(undone)
    assert json.loads(undone.stdout)["overwritten"] is False
    assert json.loads(undone.stdout)["is_partial"] is False
    assert lucid("doctor", data=data).returncode == 0
    for status, code, arguments in (
        (5, "keys.not_moving", ("--undo",)),
        (2, "usage", ()),
        (2, "usage", ("--undo", str(tmp_path))),
        (2, "config.path", (os.fsdecode(b"/tmp/\xff"),)),
        (2, "config.path", ("/dev/null/keys",)),
    ):
        done = lucid("keys", "move", *arguments, "--json", data=data)
        assert (done.returncode, json.loads(done.stdout)["code"]) == (status, code)
    assert lucid("doctor", data=data).returncode == 0
