"""The numbers and settings of a session in the bodies of the API."""

from typing import Any

from handlers.lifecycle.decide import decide
from handlers.lifecycle.session import evolve, initial
from handlers.lifecycle.view import summary
from schemas.events.session import CaptureSettings
from streams.api.shapes import session_shown, statistics
from tests.support.evidence.session_commands import open_upload

SEAL = {
    "seal_no": 1,
    "sealed_us": 9,
    "manifest": "aa",
    "root": "bb",
    "chunks": 7,
    "data_chunks": 6,
    "plain": 800,
    "sealed": 400,
}
PROGRESS = {
    "recorded": 4,
    "stored": 3,
    "fragments": 70,
    "plain": 600,
    "missing": 2,
    "host_gaps": 1,
    "dead": 101,
    "refused": [{"code": "fragment.tag"}] * 100,
}


def listed(**more: Any) -> dict[str, Any]:
    """A session as a list tells of it."""
    (event,) = decide(initial("demo-01"), open_upload(**more))
    return summary(evolve(initial("demo-01"), event, 1))


def test_the_numbers_of_a_session_are_those_of_its_stages() -> None:
    """Breaks: a session with a hundred refused messages and a minute of pictures is shown with none."""
    told = statistics({**listed(), **PROGRESS, "duration_us": 2_500_000}).model_dump()
    assert told == dict.fromkeys(told) | {
        "duration_s": 2.5,
        "chunks": 4,
        "chunks_stored": 3,
        "fragments": 70,
        "bytes": 600,
        "errors": 101,
        "gaps": 3,
    }


def test_a_seal_tells_the_numbers_that_the_stages_have_forgotten() -> None:
    """Breaks: a destroyed session is shown as one that never held a byte."""
    forgotten = dict.fromkeys(PROGRESS, 0) | {"refused": []}
    for progress in ({}, forgotten):
        told = statistics({**listed(), **progress, "duration_us": 1, "losses": 1, "seal": SEAL})
        assert (told.chunks, told.chunks_stored, told.bytes, told.stored_bytes) == (6, 5, 800, 400)
        assert told.compression_ratio == 2


def test_a_list_counts_the_stored_chunks_of_a_running_session() -> None:
    """Breaks: a list shows every running session as empty, and claims to know that nothing is missing."""
    told = statistics({**listed(), "live": {"chunks": 7, "plain": 4096}})
    assert (told.chunks, told.chunks_stored, told.bytes) == (7, 7, 4096)
    assert (told.fragments, told.errors, told.gaps) == (None, None, None)


def test_a_capture_that_nobody_told_is_null() -> None:
    """Breaks: the recording of a foreign host is listed with 30 pictures a second that nobody took."""
    config = session_shown(listed()).recording_config
    assert (config.frame_rate, config.resolution, config.quality, config.cursor) == (None, None, None, None)
    assert config.compression == "zstd"
    known = session_shown(listed(capture=CaptureSettings(frame_rate=5))).recording_config
    assert (known.frame_rate, known.resolution, known.quality) == (5, "1920x1080", "high")


def test_the_etag_is_of_the_members_that_stand_beside_it() -> None:
    """Breaks: a change between two reads is overwritten: its ETag stands with the members of before."""
    found = {"revision": 3, "details": {"name": "third"}}
    shown = session_shown({**listed(), "revision": 4}, found)
    assert (shown.revision, shown.name) == (3, "third")
