"""What infra.telemetry.otel_environment promises."""

import subprocess
import sys

import pytest

from infra.telemetry.otel_environment import Sampling, delay_ms, is_on, sampling, server_place, service_name

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


def test_the_sdk_is_not_imported_where_traces_are_off() -> None:
    """Breaks: each command of `lucid` starts 0.2 s later, though nobody asked for traces."""
    code = "import sys, streams.roles.drivers; print('opentelemetry.sdk' in sys.modules)"
    said = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "False"
