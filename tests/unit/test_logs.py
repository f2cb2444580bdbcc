"""What schemas.config.logs promises."""

import logging

import pytest

from schemas.config.logs import LONGEST, MASK, logger

log = logger("lucid.test")


@pytest.fixture(autouse=True)
def every_level(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "lucid.test")


def test_an_event_is_one_line_of_its_name_and_facts(caplog: pytest.LogCaptureFixture) -> None:
    """Breaks: a search of the log for session=demo-01 misses lines."""
    log.info("chunk_stored", session="demo-01", index=2, wait_s=0.123456, error=OSError("no space left"))
    assert caplog.messages == ['chunk_stored session=demo-01 index=2 wait_s=0.123 error="no space left"']


@pytest.mark.parametrize("name", ["encryption_key", "password", "TOKEN", "seeds", "nats_credentials"])
def test_a_secret_is_masked_by_its_name(caplog: pytest.LogCaptureFixture, name: str) -> None:
    """Breaks: one careless line writes the master key into the log of a service."""
    log.warning("loaded", **{name: "correct horse"})
    assert caplog.messages == [f"loaded {name}={MASK}"]


def test_a_value_of_a_host_adds_no_line_and_is_cut(caplog: pytest.LogCaptureFixture) -> None:
    """Breaks: a hostile host forges lines of the log, or fills the disk with one."""
    log.error("refused", session="x\nadmin_logged_in user=root\x1b[2J", subject="s" * 10_000)
    (line,) = caplog.messages
    assert line.isprintable()
    assert line.startswith('refused session="x\\u000aadmin_logged_in')
    assert len(line) < 2 * LONGEST


def test_a_value_that_cannot_be_shown_ends_no_caller(caplog: pytest.LogCaptureFixture) -> None:
    """Breaks: an error without a text ends the service that only logs it."""

    class Textless(Exception):
        def __str__(self) -> str:
            raise ValueError("no text")

    log.warning("job_failed", error=Textless(), stage="store")
    assert caplog.messages == ['job_failed error="<Textless has no text>" stage=store']


def test_a_stack_trace_follows_its_event(caplog: pytest.LogCaptureFixture) -> None:
    """Breaks: a bug is logged without the place where it happened."""
    try:
        raise KeyError("lost")
    except KeyError:
        log.exception("job_failed", stage="store")
    first, *trace = caplog.messages[0].splitlines()
    assert first == "job_failed stage=store"
    assert trace[-1] == "KeyError: 'lost'"


def test_what_is_below_the_level_is_not_rendered(caplog: pytest.LogCaptureFixture) -> None:
    """Breaks: debug lines cost time where nobody reads them."""

    class Costly:
        def __str__(self) -> str:
            raise AssertionError("rendered")

    caplog.set_level(logging.WARNING, "lucid.test")
    log.debug("action", of=Costly())
    assert caplog.messages == []
