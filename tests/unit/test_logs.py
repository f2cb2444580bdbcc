"""What schemas.config.logs and infra.telemetry.logs promise."""

import asyncio
import json
import logging
from datetime import datetime, timedelta
from typing import Any

import pytest

from infra.telemetry.logs import LINE, JsonObjects, Lines, configure_logs
from schemas.config.logs import LONGEST, MASK, bind, logger, masked
from schemas.config.settings import Settings
from schemas.ports.metrics import NO_METER
from schemas.ports.telemetry import CURRENT
from streams.control.measured import measured

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


# as JSON


def as_json(*records: logging.LogRecord) -> list[dict[str, Any]]:
    form = JsonObjects("worker-0")
    return [json.loads(form.format(record)) for record in records]


def test_a_fact_is_a_member_of_its_own(caplog: pytest.LogCaptureFixture) -> None:
    """Breaks: a program that reads logs must take sentences apart to find a session."""
    log.info(
        "chunk_stored", session="demo-01", index=2, wait_s=0.5, lossy=True, level="odd", error=OSError("x")
    )
    (told,) = as_json(*caplog.records)
    assert datetime.fromisoformat(told.pop("time")).utcoffset() == timedelta(0)
    assert told == {
        "level": "INFO",
        "component": "lucid.test",
        "process": "worker-0",
        "event": "chunk_stored",
        "session": "demo-01",
        "index": 2,
        "wait_s": 0.5,
        "lossy": True,
        "level_": "odd",
        "error": "x",
    }


def test_json_stays_one_line_and_numbers_stay_numbers(caplog: pytest.LogCaptureFixture) -> None:
    """Breaks: a value of a host forges a second object, or a reader of JSON stops at NaN."""
    log.error("refused", session='x"}\n{"event": "admin_logged_in', rate=float("nan"), text="s" * 10_000)
    line = JsonObjects("worker-0").format(caplog.records[0])
    assert "\n" not in line
    assert "NaN" not in line
    assert len(line) < 3 * LONGEST
    assert json.loads(line)["event"] == "refused"


def test_a_stack_trace_is_one_member(caplog: pytest.LogCaptureFixture) -> None:
    """Breaks: a bug is spread over forty lines that belong to nothing."""
    try:
        raise KeyError("lost")
    except KeyError:
        log.exception("job_failed", stage="store")
        logging.getLogger("lucid.test.library").exception("it failed")
    for told in as_json(*caplog.records):
        assert told["exception"].endswith("KeyError: 'lost'")


@pytest.mark.parametrize(
    "text",
    [
        "cannot reach nats://lucid:correct-horse@127.0.0.1:4222/x",
        "cannot reach mongodb://lucid:p@ss/correct-horse@db/x",
        "header Authorization: Bearer correct-horse",
        "a token eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJj" + "correct-horse" * 200,
        "token eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJjb3JyZWN0LWhvcnNlIn0.correct-horse",
    ],
)
def test_a_credential_is_masked_wherever_it_stands(text: str, caplog: pytest.LogCaptureFixture) -> None:
    """Breaks: the text of an error of a library carries a password into the log."""
    log.warning("connection_failed", error=ConnectionError(text))
    try:
        raise ConnectionError(text)
    except ConnectionError:
        log.exception("connection_failed")
    logging.getLogger("lucid.test.library").warning(text)
    for record in caplog.records:
        for form in (JsonObjects("up"), Lines(LINE)):
            line = form.format(record)
            assert MASK in line
            assert "correct-horse" not in line
            assert "eyJzdWIi" not in line


def test_a_hostile_text_is_masked_in_one_pass() -> None:
    """Breaks: one request whose text looks like tokens stops the whole service for seconds."""
    assert masked("-eyJ" * 250_000).startswith("-eyJ")  # quadratic: ten minutes


async def test_an_event_names_the_trace_around_it(caplog: pytest.LogCaptureFixture) -> None:
    """Breaks: a line of the log leads to no trace, and a trace to no line."""
    token = CURRENT.set("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
    try:
        log.info("worked")
        (told,) = as_json(*caplog.records)
    finally:
        CURRENT.reset(token)
    assert told["trace_id"] == "0af7651916cd43dd8448eb211c80319c"
    assert "trace_id" not in as_json(*caplog.records)[0]


async def test_facts_of_a_task_are_in_its_events_alone(caplog: pytest.LogCaptureFixture) -> None:
    """Breaks: an event of one session is logged under the name of another one."""

    async def work(session: str) -> None:
        bind(session=session, trace_id="")
        await asyncio.sleep(0)
        log.info("worked")
        log.info("compared", session="other")

    await asyncio.gather(*(asyncio.create_task(work(name)) for name in ("a", "b")))
    log.info("done")
    assert sorted(caplog.messages) == [
        *("compared session=other", "compared session=other"),
        *("done", "worked session=a", "worked session=b"),
    ]


async def test_events_of_a_command_name_its_session_and_those_after_it_do_not(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Breaks: a warning in the command of one session is taken for that of another."""

    async def carried_out(name: str, raw: bytes) -> bytes:
        log.info("carried_out", command=name)
        return b'{"ok": {}}'

    answer = measured(NO_METER, carried_out)
    for raw in (b'{"session": "demo-01"}', b'{"session": "no id"}', b'{"session": {}}', b"[]", b"{", b""):
        await answer("stop", raw)
    assert caplog.messages == [
        "carried_out command=stop session=demo-01",
        *["carried_out command=stop"] * 5,
    ]


@pytest.mark.parametrize(("form", "first"), [("json", "{"), ("console", "2"), ("auto", "{")])
def test_the_setting_chooses_the_form(
    form: str, first: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Breaks: people read JSON at a terminal, or programs get lines; a library fills the log at DEBUG."""
    root = logging.getLogger()
    before = (root.handlers, root.level, logging.getLogger("lucid").level)
    try:
        configure_logs(Settings(log_format=form, log_level="DEBUG"), "worker")
        log.debug("action", of=1)
        logging.getLogger("pymongo.command").debug("a body")
        logging.getLogger("uvicorn.error").info("Started server process [7]")
    finally:
        root.handlers, level, ours = before
        root.setLevel(level)
        for name in ("lucid", "infra", "streams", "uvicorn"):
            logging.getLogger(name).setLevel(ours)
    lines = capsys.readouterr().err.splitlines()
    assert [line[0] for line in lines] == [first, first]
