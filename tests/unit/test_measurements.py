"""What the measurements of a process promise, and the page that is made of several of them."""

import json
import math
from typing import Any

import pytest
from prometheus_client.exposition import generate_latest as text
from prometheus_client.openmetrics.exposition import generate_latest as open_metrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_open_metrics
from prometheus_client.parser import text_string_to_metric_families as read_text

from handlers.retention.forecast import hours_to_full
from infra.telemetry.metrics import OTHER, SERIES_MOST, Meter
from schemas.errors import Unavailable
from schemas.ports.metrics import NO_METER, trace_id_of
from streams.api.metrics import Page
from streams.api.processes import Processes, Seen, named

TRACE = "0af7651916cd43dd8448eb211c80319c"


def answer(meter: Meter) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(meter.sample())
    return found


def page(**answers: Any) -> Page:
    return Page(Seen(answers, dict.fromkeys(answers, True)))


def values(text_page: str) -> dict[tuple[str, ...], float]:
    """Every sample by its name and the values of its labels, in the order of their names."""
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in read_text(text_page)
        for sample in family.samples
    }


def test_the_samples_of_all_processes_are_one_valid_page() -> None:
    """Breaks: Prometheus refuses the whole page because two processes count the same thing."""
    meters = {name: Meter(name) for name in ("worker-0", "worker-1")}
    for number, meter in enumerate(meters.values(), 1):
        meter.counter("lucid_stage_chunks", "Chunks.", stage="store").add(number)
        meter.histogram("lucid_stage_seconds", "Times.", stage="store").observe(0.02)
        meter.rows("lucid_lag", "Lag.", ("stage",), lambda: {("store",): 3})
    made = page(**{name: answer(meter) for name, meter in meters.items()})
    found = values(text(made).decode())
    assert found["lucid_stage_chunks_total", "worker-0", "store"] == 1
    assert found["lucid_stage_chunks_total", "worker-1", "store"] == 2
    assert found["lucid_stage_seconds_count", "worker-1", "store"] == 1
    assert found["lucid_lag", "worker-1", "store"] == 3
    assert found["lucid_process_up", "worker-0"] == 1
    assert not [name for name, *_ in found if name.endswith("_created")]
    names = [family.name for family in read_open_metrics(open_metrics(made).decode())]
    assert len(names) == len(set(names))


def test_an_exemplar_leads_from_a_slow_chunk_to_its_trace() -> None:
    """Breaks: a dashboard shows that a stage is slow, and nobody finds one slow chunk."""
    meter = Meter("worker")
    seconds = meter.histogram("lucid_chunk_seconds", "Times.")
    seconds.observe(0.3, TRACE)
    seconds.observe(7)
    made = page(worker=answer(meter))
    shown = open_metrics(made).decode()
    (line,) = [one for one in shown.splitlines() if TRACE in one]
    assert 'le="0.5"' in line
    assert f'# {{trace_id="{TRACE}"}} 0.3 ' in line
    assert TRACE not in text(made).decode()


@pytest.mark.parametrize(
    ("header", "trace_id"),
    [
        (f"00-{TRACE}-b7ad6b7169203331-01", TRACE),
        (f"00-{TRACE}-b7ad6b7169203331-00", ""),
        (f"00-{TRACE.upper()}-b7ad6b7169203331-01", ""),
        (f'00-{TRACE[:-1]}"-b7ad6b7169203331-01', ""),
        ("", ""),
    ],
)
def test_only_a_sampled_trace_is_an_exemplar(header: str, trace_id: str) -> None:
    """Breaks: an exemplar leads to a trace that nobody has kept."""
    assert trace_id_of({"traceparent": header}) == trace_id


def test_labels_without_end_are_counted_under_one_name() -> None:
    """Breaks: a client that makes up names fills the memory of the process and of Prometheus."""
    meter = Meter("http")
    for number in range(SERIES_MOST + 50):
        meter.counter("lucid_errors", "Errors.", code=f"made.up.{number}").add()
    (family,) = [one for one in answer(meter)["families"] if one["name"] == "lucid_errors"]
    assert len(family["samples"]) == SERIES_MOST + 1
    assert ["lucid_errors_total", {"code": OTHER}, 50.0, None] in family["samples"]


def test_the_largest_answer_fits_into_a_message() -> None:
    """Breaks: a busy process can no longer tell its measurements, and is taken for dead."""
    meter = Meter("http")
    for number in range(1000):
        route = f"/api/v1/sessions/{{session_id}}/chunks/{{chunk_id}}/{number}"
        meter.counter("lucid_errors", "Errors.", code=f"{'made.up.' * 5}{number}").add()
        meter.counter("lucid_http_requests", "R.", method="GET", route=route, status="2xx").add()
        seconds = meter.histogram("lucid_http_request_seconds", "S.", method="GET", route=route)
        seconds.observe(0.1, TRACE)
    assert len(meter.sample()) < 800_000


def test_a_reader_that_fails_takes_no_other_rows_with_it() -> None:
    """Breaks: one broken measurement hides all others, just when they are needed."""
    meter = Meter("conductor")
    meter.value("lucid_broken", "Broken.", lambda: 1 // 0)
    meter.value("lucid_whole", "Whole.", lambda: 7)
    found = values(text(page(conductor=answer(meter))).decode())
    assert found["lucid_whole", "conductor"] == 7
    assert ("lucid_broken", "conductor") not in found


def gauge(*samples: Any, **changed: Any) -> Any:
    return {
        "families": [{"name": "lucid_lag", "type": "gauge", "text": "a\nb", "samples": samples, **changed}]
    }


HOSTILE = [
    {"families": None},
    gauge(name="up\nfake 1"),
    gauge(type="summary"),
    gauge(["other", {}, 1, None]),
    gauge(["lucid_lag", {}, 1, None], ["lucid_lag", {}, 2, None]),
    gauge(["lucid_lag", {"a b": "x", "process": "forged"}, 1, None]),
    gauge(["lucid_lag", {"a": 'x"\n'}, "many", None], ["lucid_lag"], 7),
]


@pytest.mark.parametrize("hostile", HOSTILE)
def test_an_answer_of_a_stranger_leaves_the_page_valid(hostile: Any) -> None:
    """Breaks: whoever may publish to NATS switches all alerts off with one message."""
    meter = Meter("worker")
    meter.rows("lucid_lag", "Lag.", ("stage",), lambda: {("store",): 3})
    made = page(worker=answer(meter), stranger=hostile)
    for encode in (text, open_metrics):
        lines = encode(made).decode().splitlines()
        samples = [line.rsplit(" ", 1)[0] for line in lines if not line.startswith("#")]
        assert len(samples) == len(set(samples))
        assert not [line for line in lines if "fake" in line]
    assert values(text(made).decode())["lucid_lag", "worker", "store"] == 3


def test_processes_of_one_name_stay_apart() -> None:
    """Breaks: with two conductors the page has every series twice, and is refused."""
    found = {("conductor@a", "2"): {"n": 2}, ("conductor@a", "1"): {"n": 1}, ("worker", "0"): {"n": 3}}
    assert named(found) == {"conductor@a": {"n": 1}, "conductor@a#2": {"n": 2}, "worker": {"n": 3}}


async def test_a_process_that_no_longer_answers_is_shown_as_down() -> None:
    """Breaks: a worker that hangs looks like one that was never there, and no alert fires."""
    own, worker = Meter("http"), Meter("worker")
    supervisor = Meter("up", ("conductor", "http", "worker"))
    answering = [worker.sample(), supervisor.sample(), b"garbage", b"[]", b'{"process": 7, "instance": {}}']

    class Asked:
        async def request_all(self, subject: str, data: bytes, timeout_s: float, take: Any) -> None:
            for raw in answering:
                take(raw)

    processes = Processes(Asked(), own)  # type: ignore[arg-type]
    first = await processes.look()
    assert first.up == {"conductor": False, "http": True, "up": True, "worker": True}
    answering[:2] = [supervisor.sample()]
    assert await processes.look() is first  # scrapes that come together share one look
    processes._seen = None
    assert (await processes.look()).up["worker"] is False


async def test_without_nats_a_process_still_shows_its_own() -> None:
    """Breaks: an outage of NATS takes the page away that would show it."""

    class Down:
        async def request_all(self, *_: Any) -> None:
            raise Unavailable("down", code="nats.disconnected")

    seen = await Processes(Down(), Meter("http")).look()  # type: ignore[arg-type]
    assert (list(seen.answers), seen.up) == (["http"], {"http": True})


def test_without_a_meter_nothing_is_kept() -> None:
    """Breaks: a program that measures nothing pays for it."""
    NO_METER.rows("lucid_lag", "Lag.", (), dict)
    assert NO_METER.counter("lucid_a", "A.", stage="x") is NO_METER.counter("lucid_b", "B.")


def test_the_forecast_follows_the_slope_of_an_hour() -> None:
    """Breaks: a disk is full before anybody is told, or an alarm comes of one large file."""
    filling = [(60.0 * minute, 36_000_000 - 100_000 * minute) for minute in range(60)]
    assert hours_to_full(filling) == pytest.approx(301 / 60)
    assert hours_to_full([(at_s, 5) for at_s, _ in filling]) == math.inf
    assert hours_to_full([(at_s, 5 + int(at_s)) for at_s, _ in filling]) == math.inf
    assert hours_to_full(filling[:4]) == math.inf
    assert hours_to_full([]) == math.inf
