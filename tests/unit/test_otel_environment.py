"""What infra.telemetry.otel_environment promises."""

import subprocess
import sys
from pathlib import Path

import pytest

from infra.telemetry.otel_environment import (
    Sampling,
    SpanLimits,
    delay_ms,
    is_on,
    propagates,
    sampling,
    server_place,
    service_name,
    span_limits,
)
from infra.telemetry.otel_variables import OTEL_VARIABLES, unused_variables, wrong_variables

SERVER = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://someone:word@127.0.0.1:4318/base"}


@pytest.mark.parametrize(
    ("environ", "on"),
    [
        ({}, False),
        (SERVER, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:4318/v1/traces"}, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": " "}, False),
        ({**SERVER, "OTEL_SDK_DISABLED": "true"}, False),
        ({**SERVER, "OTEL_TRACES_EXPORTER": "none"}, False),
        ({**SERVER, "OTEL_TRACES_EXPORTER": "otlp"}, True),
    ],
)
def test_traces_are_on_where_there_is_an_endpoint(environ: dict[str, str], on: bool) -> None:
    """Breaks: somebody who set no variable pays for traces, or one who set it sees none."""
    assert is_on(environ=environ) is on


@pytest.mark.parametrize(
    ("name", "argument", "wanted"),
    [
        ("", "", Sampling(1.0, True)),
        ("always_on", "", Sampling(1.0, False)),
        ("always_off", "", Sampling(0.0, False)),
        ("parentbased_always_off", "", Sampling(0.0, True)),
        ("parentbased_traceidratio", "0.25", Sampling(0.25, True)),
        ("traceidratio", "0.25", Sampling(0.25, False)),
        ("traceidratio", "7", Sampling(1.0, False)),
        ("parentbased_traceidratio", "much", Sampling(1.0, True)),
        ("jaeger_remote", "", Sampling(1.0, True)),
    ],
)
def test_the_sampler_is_the_one_that_is_named(name: str, argument: str, wanted: Sampling) -> None:
    """Breaks: a wrong value stops a recording, or a right one keeps all traces of a large system."""
    assert sampling({"OTEL_TRACES_SAMPLER": name, "OTEL_TRACES_SAMPLER_ARG": argument}) == wanted


def test_a_name_from_outside_is_kept() -> None:
    """Breaks: two installations that an operator named apart are one in Jaeger."""
    assert service_name("lucid-worker", {}) == "lucid-worker"
    assert service_name("lucid-worker", {"OTEL_SERVICE_NAME": "east"}) == ""
    assert service_name("lucid-worker", {"OTEL_RESOURCE_ATTRIBUTES": "a=b,service.name=east"}) == ""


def test_the_place_of_the_server_tells_no_credentials() -> None:
    """Breaks: the password of a collector is in the log."""
    assert server_place(environ=SERVER) == "127.0.0.1:4318"
    assert (delay_ms({}), delay_ms({"OTEL_BSP_SCHEDULE_DELAY": "x"})) == (1000.0, 1000.0)
    assert delay_ms({"OTEL_BSP_SCHEDULE_DELAY": "250"}) == 250.0


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("OTEL_PROPAGATORS", "tracecontext"),
        ("OTEL_PROPAGATORS", "tracecontext, baggage"),
        ("OTEL_PROPAGATORS", "none"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20abc, x-team=a=b"),
        ("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment=east,team=a"),
        ("OTEL_SPAN_LINK_COUNT_LIMIT", "0"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "1.5"),
        ("OTEL_TRACES_SAMPLER", "PARENTBASED_TRACEIDRATIO"),
        ("OTEL_TRACES_SAMPLER_ARG", "of a sampler that has no ratio"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "512"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", " "),
    ],
)
def test_a_right_value_is_no_obstacle(name: str, given: str) -> None:
    """Breaks: a recording system does not start for the sake of its traces."""
    assert [str(one) for one in wrong_variables(environ={**SERVER, name: given})] == []


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("OTEL_PROPAGATORS", "b3"),
        ("OTEL_PROPAGATORS", "tracecontext,jaeger"),
        ("OTEL_PROPAGATORS", "baggage"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
        ("OTEL_TRACES_EXPORTER", "zipkin"),
        ("OTEL_TRACES_SAMPLER", "jaeger_remote"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "0"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "100"),
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "4096"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "nan"),
        ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/nowhere/at/all"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "a secret without a name"),
    ],
)
def test_a_value_that_would_lose_traces_is_refused(name: str, given: str) -> None:
    """Breaks: spans go nowhere, and nobody is told why."""
    (wrong,) = wrong_variables(environ={**SERVER, name: given})
    assert wrong.code == "config.otel"
    assert name in wrong.message
    assert "secret" not in wrong.message


def test_where_nothing_is_traced_nothing_is_refused() -> None:
    """Breaks: a variable for other programs of the machine stops one that does not trace."""
    wrong = {"OTEL_PROPAGATORS": "b3", "OTEL_BSP_MAX_QUEUE_SIZE": "x"}
    assert list(wrong_variables(environ=wrong)) == []
    assert list(wrong_variables(environ={**SERVER, **wrong, "OTEL_SDK_DISABLED": "true"})) == []
    assert len(list(wrong_variables("http://127.0.0.1:4318", wrong))) == 2


def test_the_limits_of_spans_are_those_of_the_environment() -> None:
    """Breaks: a server that takes short attributes only refuses whole batches."""
    assert span_limits({}) == SpanLimits(128, -1, 128)
    everything = {"OTEL_ATTRIBUTE_COUNT_LIMIT": "3", "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT": "4"}
    assert span_limits(everything) == SpanLimits(3, 4, 128)
    own = {"OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT": "2", "OTEL_SPAN_LINK_COUNT_LIMIT": "1"}
    assert span_limits({**everything, **own}) == SpanLimits(2, 4, 1)
    assert SpanLimits(2, 4).within({"a": "12345", "b": 12345, "c": True}) == {"a": "1234", "b": 12345}
    assert propagates({}) is not propagates({"OTEL_PROPAGATORS": "none"})


def test_a_variable_without_an_effect_is_told() -> None:
    """Breaks: somebody tunes a variable that nothing reads."""
    unused = unused_variables({"OTEL_BSP_EXPORT_TIMEOUT": "1", "OTEL_BSP_SCHEDULE_DELAY": "1"})
    assert [one.name for one in unused] == ["OTEL_BSP_EXPORT_TIMEOUT"]


def test_the_documentation_lists_every_variable_of_opentelemetry() -> None:
    """Breaks: of a standard variable nobody can read whether it works here."""
    page = (Path(__file__).parents[2] / "docs" / "observability.md").read_text()
    rows = [
        f"| {', '.join(f'`{name}`' for name in one.names)} | {one.kind.allowed} | {one.effect} |"
        for one in OTEL_VARIABLES
    ]
    assert [row for row in rows if row not in page] == []


def test_the_sdk_is_not_imported_where_traces_are_off() -> None:
    """Breaks: each command of `lucid` starts 0.2 s later, though nobody asked for traces."""
    code = "import sys, streams.roles.drivers; print('opentelemetry.sdk' in sys.modules)"
    said = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "False"
