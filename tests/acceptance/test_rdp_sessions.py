"""A person logs in over RDP, and the agent records it: real xrdp, real client, real browser, real eyes."""

import base64
import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from blake3 import blake3

from infra.capture.ffmpeg import decode, ffmpeg
from schemas.format.fragment import PartBody, PartSettings, parse
from tests.support.machine.browser import played
from tests.support.machine.x_display import Person, program, xvfb
from tests.support.program.installation import Installation, running
from tests.support.servers.xrdp import RdpClient, RdpServer, rdp_server, wait_for

SENTENCE = "evidence is what remains"
HOST = "rdp-1"
NOTICE = "This session is recorded."
VERSION = f"notice.{blake3(NOTICE.encode()).hexdigest()[:16]}"


@dataclass
class Recorded:
    """One RDP session, from its login to its seal."""

    system: Installation
    session: str
    user: str
    log: list[dict[str, object]]
    """Of the agent."""
    copy: Path
    """Its evidence."""
    films: dict[int, Path]
    """By part; a part without a picture has none."""
    reasons: list[str]
    """Of each part."""


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recorded]:
    folder = tmp_path_factory.mktemp("rdp")
    notices, log = folder / "notices", folder / "agent.log"
    (folder / "notice.txt").write_text(NOTICE)
    with xvfb(folder, screen="1600x1000x24") as number, running(folder / "data") as system:
        with open(log, "wb") as said:
            options = ("--host", HOST, "--notices", str(notices), "--notice", str(folder / "notice.txt"))
            agent = system.started("agent", "run", *options, stderr=said)
        wait_for(notices.is_fifo)
        with rdp_server(notices) as server:
            session = work(log, server, RdpClient(server, Person(folder, number)))
            user = server.user
        system.until_sealed(session)
        agent.terminate()
        agent.wait()
        copy = folder / "copy"
        assert system("export", session, "--evidence", copy).status == 0
        reasons = reasons_of(copy)
        found = films(system, session, folder, len(reasons))
        yield Recorded(system, session, user, lines_of(log), copy, found, reasons)


def work(log: Path, server: RdpServer, client: RdpClient) -> str:
    """Log in, type, resize, disconnect, come back, log off. Returns the session that was recorded."""

    def events(name: str, **wanted: str) -> list[dict[str, object]]:
        lines = [line for line in lines_of(log) if line["event"] == name]
        return [line for line in lines if wanted.items() <= line.items()]

    client.connect("1280x720")
    server.wait_for_desktop()
    wait_for(lambda: events("rdp_session_recorded") and events("part_begun", reason=VERSION))
    said = server.home / "said"
    client.type_until(f"clear; echo {SENTENCE} | tee said", lambda: said.exists() and said.read_text())
    client.resize(1000, 700)
    wait_for(lambda: events("part_begun", reason="resized"))
    client.disconnect()
    wait_for(lambda: events("part_begun", reason="disconnected"))
    client.connect("1280x720")
    wait_for(lambda: len(events("part_begun", reason=VERSION)) > 1)
    client.type_until("exit", server.has_ended)
    wait_for(lambda: events("rdp_session_ended"))
    return str(events("rdp_session_recorded")[0]["session"])


def lines_of(log: Path) -> list[dict[str, object]]:
    """The whole lines of a log of JSON."""
    return [json.loads(line) for line in log.read_text().splitlines(keepends=True) if line.endswith("\n")]


def reasons_of(copy: Path) -> list[str]:
    """Why each part begins, as its host has sealed it."""
    (envelope,) = (copy / "manifests").iterdir()
    manifest = json.loads(base64.b64decode(json.loads(envelope.read_bytes())["payload"]))
    fragments = [parse(base64.b64decode(part["fragment"])) for part in manifest["parts"]]
    return [PartSettings.parse(PartBody.parse(one.clear).settings).reason for one in fragments]


def films(system: Installation, session: str, folder: Path, parts: int) -> dict[int, Path]:
    """The film of each part that has a picture."""
    found = {}
    for part in range(parts):
        file = folder / f"{part}.mp4"
        assert system("export", session, "--part", str(part), "--out", file).status == 0
        if file.stat().st_size:
            found[part] = file
    return found


def text_on(film: Path, folder: Path, at_s: str = "") -> str:
    """The text that a reader of print finds on the last picture, or on the one at a time."""
    picture = folder / "picture.png"
    picture.unlink(missing_ok=True)
    begin = ("-ss", at_s) if at_s else ("-sseof", "-1")
    shown = (*begin, "-i", film, "-update", "1", *(("-frames:v", "1") if at_s else ()))
    subprocess.run(
        [ffmpeg(), "-v", "error", "-y", *map(str, shown), "-vf", "scale=iw*2:-1", str(picture)], check=True
    )
    if not picture.exists():  # a part may be too short for it
        return ""
    command = [program("tesseract"), str(picture), "-", "--psm", "11"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_an_rdp_session_appears_by_itself_and_is_sealed(recorded: Recorded) -> None:
    """Breaks: a person works over RDP, and nobody recorded it; or the recording never ends."""
    assert [one["session"] for one in recorded.system.json("sessions", "list")["sessions"]] == [
        recorded.session
    ]
    done = recorded.system("verify", recorded.session, "--strict")
    assert done.status == 0, str(done)
    assert [line for line in recorded.log if line["level"] in ("WARNING", "ERROR")] == []


def test_the_hook_of_pam_reaches_the_agent(recorded: Recorded) -> None:
    """Breaks: a session is seen only when the agent looks by itself, and its first second is lost."""
    assert "notice_heard" in [line["event"] for line in recorded.log]


def test_the_evidence_tells_when_nobody_was_connected(recorded: Recorded) -> None:
    """Breaks: programs that ran without a person in front of them look like the work of that person."""
    assert recorded.reasons[0] == "start"
    away = recorded.reasons.index("disconnected")
    assert "resized" in recorded.reasons[:away], recorded.reasons
    assert "reconnected" in recorded.reasons[away + 1 :], recorded.reasons


def test_the_evidence_names_the_notice_that_the_person_saw(recorded: Recorded, tmp_path: Path) -> None:
    """Breaks: nobody can prove that the person knew of the recording, nor which text they were shown."""
    parts = [part for part, reason in enumerate(recorded.reasons) if reason == VERSION]
    assert len(parts) >= 2, recorded.reasons  # at the login, and when the person came back
    texts = [text_on(recorded.films[part], tmp_path, "0") for part in parts]
    assert any("session is recorded" in text for text in texts), texts


def test_the_person_and_the_client_are_known_and_sealed(recorded: Recorded) -> None:
    """Breaks: an auditor cannot say whose session it was, or everyone who reads the log can."""
    told = recorded.system.json("sessions", "details", recorded.session)
    config = told["details"]["rdp_config"]
    assert (config["username"], config["client_address"], config["host"]) == (
        recorded.user,
        "127.0.0.1",
        HOST,
    )
    stored = (recorded.copy / "history.ndjson").read_text()
    assert recorded.user not in stored


def test_each_part_plays_and_shows_the_size_of_its_display(recorded: Recorded, tmp_path: Path) -> None:
    """Breaks: a film ends at the first resize, or is cropped after it."""
    sizes = [(media.width, media.height) for media in map(decode, recorded.films.values())]
    assert (1280, 720) in sizes
    assert (1000, 700) in sizes


def test_a_browser_plays_the_film_and_seeks_in_it(recorded: Recorded, tmp_path: Path) -> None:
    """Breaks: an auditor exports a recording, and no browser opens it."""
    longest = max(recorded.films.values(), key=lambda film: decode(film).seconds)
    media = decode(longest)
    told = played(longest.read_bytes(), media.seconds * 0.75, tmp_path)
    assert told["error"] is None, told
    assert told["size"] == [media.width, media.height]
    assert told["played"] >= 0.5
    assert told["sought"] == pytest.approx(media.seconds * 0.75, abs=0.2)


def test_the_sentence_that_was_typed_is_on_the_picture(recorded: Recorded, tmp_path: Path) -> None:
    """Breaks: the film plays, and shows another display, or nothing."""
    texts = [text_on(film, tmp_path) for film in recorded.films.values()]
    assert any(SENTENCE in text.lower() for text in texts), texts


def test_no_key_stroke_is_in_the_recording_or_the_log(recorded: Recorded) -> None:
    """Breaks: the recorder writes down passwords that people type."""
    assert SENTENCE not in json.dumps(recorded.log)
    for film in recorded.films.values():
        assert SENTENCE.encode() not in film.read_bytes()
