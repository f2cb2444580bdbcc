"""What people say about sessions by the command line: members, limits, pictures, holds."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.capture.ffmpeg import decode
from tests.support.program.running import Lucid, ok, running

SMALL = ("--desktop", "--seconds", "1", "--size", "320x240", "--frame-rate", "10")


@pytest.fixture(scope="module")
def data(lucid: Lucid, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The data directory of a system that runs for all tests of this file."""
    yield from running(lucid, tmp_path_factory.mktemp("system") / "data")


def test_a_recording_is_described_drawn_and_limited_as_its_command_line_says(
    lucid: Lucid, data: Path, tmp_path: Path
) -> None:
    """Breaks: an option of `lucid record` is taken, and changes nothing."""
    described = ("--name", "Zanzibar shift", "--owner", "zanzibar-ann", "--tag", "ward-7", "--tag", "late")
    rules = ("--retention-days", "3", "--max-size-gb", "1", "--encryption", "aes-256-gcm")
    drawn = ("--quality", "low", "--bitrate", "500", "--no-cursor")
    made = ok(lucid, "record", *SMALL, *described, *rules, *drawn, "--session", "told", data=data)
    assert made["capture"] == {
        "frame_rate": 10,
        "width": 320,
        "height": 240,
        "quality": "low",
        "bitrate": 500,
        "cursor": False,
    }
    assert made["policy"] == {"retention_days": 3, "max_bytes": 10**9}
    assert made["settings"]["suite"] == 2
    found = ok(lucid, "sessions", "details", "told", data=data)["details"]
    assert (found["name"], found["owner"], found["tags"]) == (
        "Zanzibar shift",
        "zanzibar-ann",
        ["ward-7", "late"],
    )
    assert lucid("export", "told", "--out", str(tmp_path / "told.mp4"), data=data).returncode == 0
    media = decode(tmp_path / "told.mp4")
    assert (media.width, media.height, media.frames) == (320, 240, 10)
    listed = ok(lucid, "sessions", "list", "--owner", "zanzibar-ann", "--tag", "late", data=data)["sessions"]
    assert [one["session"] for one in listed] == ["told"]
    assert ok(lucid, "sessions", "list", "--owner", "zanzibar-bob", data=data)["sessions"] == []


def test_a_file_is_never_said_to_be_drawn(lucid: Lucid, data: Path, tmp_path: Path) -> None:
    """Breaks: a person asks for 10 frames a second of a file, and believes to have them."""
    (tmp_path / "film").write_bytes(b"film")
    for option in (
        ("--frame-rate", "10"),
        ("--resolution", "640x360"),
        ("--no-cursor",),
        ("--bitrate", "500"),
    ):
        said = lucid("record", "--input", str(tmp_path / "film"), *option, data=data)
        assert (said.returncode, "[record.capture]" in said.stderr) == (2, True), said.stderr
    wrong = lucid("record", *SMALL, "--priority", "urgent", data=data)
    assert (wrong.returncode, "--priority 'urgent'" in wrong.stderr) == (2, True), wrong.stderr


def test_members_change_one_by_one_and_a_hold_keeps_a_session(
    lucid: Lucid, data: Path, tmp_path: Path
) -> None:
    """Breaks: a change of the title wipes the tags; or a session under legal hold is destroyed."""
    (tmp_path / "film").write_bytes(b"film")
    film = ("--input", str(tmp_path / "film"), "--session", "kept", "--tag", "ward-7")
    ok(lucid, "record", *film, data=data)
    changed = ok(lucid, "sessions", "update", "kept", "--name", "Day shift", data=data)
    assert (changed["details"]["name"], changed["details"]["tags"]) == ("Day shift", ["ward-7"])
    lines = lucid("sessions", "details", "kept", data=data).stdout.splitlines()
    assert lines[0] == "kept | revision 2" or lines[0] == "kept · revision 2"
    assert lucid("sessions", "update", "kept", data=data).returncode == 2
    assert ok(lucid, "sessions", "hold", "kept", data=data)["held"] is True
    refused = lucid("sessions", "destroy", "kept", "--yes", data=data)
    assert (refused.returncode, "sessions release kept" in refused.stderr) == (5, True), refused.stderr
    free_text = lucid("sessions", "hold", "kept", "--reason", "case 4711", data=data)
    assert (free_text.returncode, "letters, digits" in free_text.stderr) == (2, True), free_text.stderr
    assert ok(lucid, "sessions", "release", "kept", data=data)["held"] is False
    assert ok(lucid, "sessions", "error", "kept", "--reason", "odd", data=data)["state"] == "ERROR"
    sums = ok(lucid, "sessions", "statistics", "--name", "kept", data=data)
    assert (sums["sessions"], list(sums["states"])) == (1, ["ERROR"])
    assert ok(lucid, "sessions", "destroy", "kept", "--yes", data=data)["state"] == "DESTROYED"
