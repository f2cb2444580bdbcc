"""The fixtures of these tests: a real Jaeger, and a system that sends its traces there."""

from collections.abc import Iterator

import pytest

from tests.support.program.installation import Installation, running
from tests.support.servers.jaeger import Traces, jaeger


@pytest.fixture(scope="session")
def traces(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Traces]:
    with jaeger(tmp_path_factory.mktemp("jaeger")) as found:
        yield found


@pytest.fixture(scope="session")
def system(traces: Traces, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    folder = tmp_path_factory.mktemp("traced")
    environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": traces.otlp_url, "SCRUB_MB_PER_S": "100"}
    with running(folder / "data", **environment) as installation:
        yield installation
