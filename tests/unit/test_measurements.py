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
from streams.api import process_answers
from streams.api.metrics import Page
from streams.api.process_answers import read_answers
from streams.api.processes import ALL_BYTES_MOST, ANSWER_BYTES_MOST, PROCESSES_MOST, Processes, Seen

TRACE = "0af7651916cd43dd8448eb211c80319c"


def answer(meter: Meter) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(meter.sample())
    return found


def page(**answers: Any) -> Page:
    read = read_answers({name: json.dumps(one).encode() for name, one in answers.items()})
    return Page(Seen(read.families, dict.fromkeys(answers, True), {}))


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
    gauge(["lucid_lag", {"a b": "x", "process": "worker"}, 1, None]),
    gauge(["lucid_lag", {"a": 'x"\n'}, "many", None], ["lucid_lag"], 7),
    gauge(["lucid_lag", {"a": "\ud800"}, 1, None], text="\udfff"),
    gauge(["lucid_lag", {}, 10**400, None]),
    gauge(["lucid_lag", {}, 1, [{"trace_id": TRACE}, 1, 1]]),
    gauge(["lucid_process_up", {}, 7, None], name="lucid_process_up"),
    gauge(["lucid_workers", {}, 7, None], name="lucid_workers"),
    {
        "families": [
            {"name": "lucid_a", "type": "counter", "text": "", "samples": [["lucid_a_total", {}, 1, None]]},
            {"name": "lucid_a_total", "type": "gauge", "text": "", "samples": [["lucid_a_total", {}, 2, 0]]},
        ]
    },
    {
        "families": [
            {
                "name": "lucid_b",
                "type": "histogram",
                "text": "",
                "samples": [["lucid_b_bucket", {"le": "1"}, 1, [{"trace_id": TRACE}, "x", "y"]]],
            }
        ]
    },
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
        types = [line.split()[2] for line in lines if line.startswith("# TYPE")]
        assert len(types) == len(set(types))
        assert not [line for line in lines if "fake" in line]
    assert values(text(made).decode())["lucid_lag", "worker", "store"] == 3


class Asked:
    """Services that give these answers."""

    def __init__(self, *answers: bytes) -> None:
        self.answers = list(answers)
        self.ended = False
        """Whether the wait of the last request ended before its time."""

    async def request_all(self, _subject: str, _data: bytes, _timeout_s: float, take: Any) -> None:
        self.ended = False
        for raw in self.answers:
            self.ended = take(raw) or self.ended


def run_of(process: str, began_us: int, instance: str) -> bytes:
    """The answer of one run of a process; its sample tells the instance."""
    sample = ["lucid_run", {"instance": instance}, 1, None]
    family = {"name": "lucid_run", "type": "gauge", "text": "", "samples": [sample]}
    head = {"process": process, "instance": instance, "began_us": began_us}
    return json.dumps({**head, "expects": [], "families": [family]}).encode()


async def names(processes: Processes) -> dict[str, str]:
    """The instance that each name stands for, and `down`."""
    processes._seen = None
    seen = await processes.look()
    runs = seen.families["lucid_run"].samples if "lucid_run" in seen.families else ()
    shown = {one.labels["process"]: one.labels["instance"] for one in runs}
    return {name: shown.get(name, "up" if is_up else "down") for name, is_up in seen.up.items()}


async def test_processes_keep_their_names_while_others_come_and_go() -> None:
    """Breaks: with each start all counters of a fleet change places, and every rate is nonsense."""
    one, two, three = (run_of("worker@a", 10 + number, name) for number, name in enumerate("zyx"))
    asked = Asked(two, three, one)
    processes = Processes(asked, Meter("http"))  # type: ignore[arg-type]
    assert await names(processes) == {"http": "up", "worker@a": "z", "worker@a#2": "y", "worker@a#3": "x"}
    asked.answers = [three, two]
    down = {"http": "up", "worker@a": "down", "worker@a#2": "y", "worker@a#3": "x"}
    assert await names(processes) == down
    again = run_of("worker@a", 99, "a")
    asked.answers = [three, again, two]
    assert await names(processes) == down | {"worker@a": "a"}
    asked.answers.reverse()
    restarted = Processes(asked, Meter("http"))  # type: ignore[arg-type]
    assert list(await names(restarted)) == list(down)


async def test_a_page_waits_for_each_process_that_it_knows() -> None:
    """Breaks: whoever answers fast with the name of a worker hides the real one."""
    real, false = run_of("worker", 1, "real"), run_of("worker", 2, "false")
    asked = Asked(real)
    processes = Processes(asked, Meter("http"))  # type: ignore[arg-type]
    await names(processes)
    asked.answers = [false]
    await names(processes)
    assert not asked.ended
    asked.answers = [false, real]
    await names(processes)
    assert asked.ended


async def test_strangers_without_end_push_no_known_process_off_the_page() -> None:
    """Breaks: one client that makes up names hides all workers, and fills the memory of Prometheus."""
    real = [run_of("worker", number, f"real-{number}") for number in range(3)]
    asked = Asked(*real)
    processes = Processes(asked, Meter("http"))  # type: ignore[arg-type]
    known = await names(processes)
    for turn in range(3):
        strangers = [run_of(f"worker@{turn}-{n}", 0, f"{n}") for n in range(PROCESSES_MOST)]
        asked.answers = [*strangers, *real]
        found = await names(processes)
        assert len(found) <= PROCESSES_MOST
        assert found.items() >= known.items()
        seen = await processes.look()
        assert seen.missing["too_many"] > 0
        assert (turn > 0) is (seen.missing["silent"] > 0)


async def test_of_too_many_bytes_the_largest_answers_are_left_out_and_counted() -> None:
    """Breaks: answers of many megabytes fill the memory of the API, or hide small ones."""
    small = [run_of("worker", number, f"small-{number}") for number in range(3)]
    room = ALL_BYTES_MOST // ANSWER_BYTES_MOST
    large = [run_of("large", 0, f"{number}" + " " * 90) for number in range(room + 2)]
    large = [raw.ljust(ANSWER_BYTES_MOST) for raw in large]
    asked = Asked(*large, run_of("huge", 0, "h").ljust(ANSWER_BYTES_MOST + 1), *small, b"[]", b"\xff")
    processes = Processes(asked, Meter("http"))  # type: ignore[arg-type]
    found = await names(processes)
    assert [found["worker"], found["worker#2"], found["worker#3"]] == ["small-0", "small-1", "small-2"]
    seen = await processes.look()
    assert seen.missing == {"silent": 0, "too_many": 0, "too_large": 3, "unreadable": 2}
    page = values(text(Page(seen)).decode())
    assert page["lucid_processes_missing", "too_large"] == 3


async def test_a_family_keeps_its_type() -> None:
    """Breaks: one small answer with a false type takes a measurement of all workers off the page."""
    worker, conductor = Meter("worker"), Meter("conductor")
    worker.counter("lucid_stage_chunks", "Chunks.", stage="store").add()
    conductor.rows("lucid_lag", "Lag.", (), lambda: {(): 3})
    asked = Asked(worker.sample(), conductor.sample())
    processes = Processes(asked, Meter("http"))  # type: ignore[arg-type]
    for _ in range(2):
        processes._seen = processes._seen and (0.0, processes._seen[1])
        seen = await processes.look()
        assert seen.families["lucid_stage_chunks"].type == "counter"
        assert seen.families["lucid_lag"].type == "gauge"
        false = gauge(name="lucid_stage_chunks")["families"], gauge(type="counter")["families"]
        head = {"process": "a", "instance": "b", "families": [*false[0], *false[1]]}
        asked.answers.append(json.dumps(head).encode())


def test_of_too_many_samples_the_largest_answers_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks: a page grows beyond the time that Prometheus waits for it, and nothing is measured any more."""
    monkeypatch.setattr(process_answers, "SAMPLES_MOST", 10)
    many = gauge(*(["lucid_lag", {"n": str(number)}, 1, None] for number in range(8)))
    few = gauge(["lucid_lag", {}, 1, None])
    told = {"many": many, "few": few, "more": gauge(*many["families"][0]["samples"] * 2)}
    read = read_answers({name: json.dumps(one).encode() for name, one in told.items()})
    assert {one.labels["process"] for one in read.families["lucid_lag"].samples} == {"many", "few"}
    assert read.left_out == 1


async def test_a_process_that_no_longer_answers_is_shown_as_down() -> None:
    """Breaks: a worker that hangs looks like one that was never there, and no alert fires."""
    own, worker = Meter("http"), Meter("worker")
    supervisor = Meter("up", ("conductor", "http", "worker"))
    answering = [worker.sample(), supervisor.sample(), b"garbage", b"[]", b'{"process": 7, "instance": {}}']

    asked = Asked(*answering)
    processes = Processes(asked, own)  # type: ignore[arg-type]
    first = await processes.look()
    assert first.up == {"conductor": False, "http": True, "up": True, "worker": True}
    asked.answers[:2] = [supervisor.sample()]
    assert await processes.look() is first  # scrapes that come together share one look
    processes._seen = None
    assert (await processes.look()).up["worker"] is False


async def test_without_nats_a_process_still_shows_its_own() -> None:
    """Breaks: an outage of NATS takes the page away that would show it."""

    class Down:
        async def request_all(self, *_: Any) -> None:
            raise Unavailable("down", code="nats.disconnected")

    seen = await Processes(Down(), Meter("http")).look()  # type: ignore[arg-type]
    assert seen.up == {"http": True}
    assert seen.families["process_open_fds"].samples[0].labels == {"process": "http"}


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
