"""Every event that was ever written is read: tests/vectors/events.json, kept by tests/vectors/make.py."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.evidence.event_samples import means, samples

EVENTS = json.loads((Path(__file__).parent.parent / "vectors" / "events.json").read_text())


@pytest.mark.parametrize("kept", EVENTS, ids=lambda kept: json.loads(kept["written"])["type"])
def test_an_event_that_was_once_written_is_read_and_means_what_it_meant(kept: dict[str, str]) -> None:
    """Breaks: a session of last year cannot be loaded any more, or says something else now."""
    today = json.loads(means(kept["stream"], kept["written"]))
    assert _within(json.loads(kept["means"]), today)


def test_every_kind_is_kept_as_it_is_written_today() -> None:
    """Breaks: an event is written in a way that nobody promised to read; tests/vectors/make.py adds it."""
    kept = {(event["stream"], event["written"]) for event in EVENTS}
    assert {(event["stream"], event["written"]) for event in samples()} <= kept


def _within(part: Any, whole: Any) -> bool:
    """Whether nothing of `part` is missing or other in `whole`, to which members may have been added."""
    match part, whole:
        case dict(), dict():
            return all(name in whole and _within(value, whole[name]) for name, value in part.items())
        case list(), list():
            return len(part) == len(whole) and all(map(_within, part, whole))
    return bool(part == whole)
