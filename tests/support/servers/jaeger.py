"""A real Jaeger on loopback, and the traces that it has, read back through its API."""

import asyncio
import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from infra.processes.jaeger import USUAL_PORTS, Jaeger, find_jaeger
from tests.support.machine.absent import absent

MISSING = 404
TRACES_MOST = 2000
KINDS = ("", "internal", "server", "client", "producer", "consumer")
"""By their number in OTLP."""


@dataclass(frozen=True)
class Seen:
    """One span as Jaeger tells it. links: trace id and span id of each."""

    trace_id: str
    span_id: str
    parent_id: str
    name: str
    service: str
    facts: dict[str, Any]
    began_ns: int
    links: tuple[tuple[str, str], ...] = ()
    error: str = ""
    instance: str = field(default="", compare=False)
    kind: str = ""


@dataclass(frozen=True)
class Traces:
    """The traces of one Jaeger."""

    otlp_url: str
    ui_url: str

    def spans(self, trace_id: str) -> list[Seen]:
        """Every span of a trace, in order of its beginning; none: Jaeger does not know the trace."""
        try:
            found = self._asked(f"traces/{trace_id}")["result"]
        except urllib.error.HTTPError as error:
            if error.code != MISSING:
                raise
            return []
        return sorted(_spans(found), key=lambda one: one.began_ns)

    def all_spans(self) -> list[Seen]:
        """Every span of every trace of this day."""
        now = datetime.now(UTC)
        day = timedelta(days=1)
        found: dict[tuple[str, str], Seen] = {}
        for service in self._asked("services")["services"]:
            query = {
                "query.service_name": service,
                "query.start_time_min": f"{now - day:%Y-%m-%dT%H:%M:%SZ}",
                "query.start_time_max": f"{now + day:%Y-%m-%dT%H:%M:%SZ}",
                "query.num_traces": str(TRACES_MOST),
            }
            seen = _spans(self._asked(f"traces?{urllib.parse.urlencode(query)}")["result"])
            found.update({(one.trace_id, one.span_id): one for one in seen})
        return list(found.values())

    def _asked(self, path: str) -> dict[str, Any]:
        with urllib.request.urlopen(f"{self.ui_url}/api/v3/{path}", timeout=30) as answer:
            told: dict[str, Any] = json.load(answer)
        return told


@contextmanager
def jaeger(folder: Path) -> Iterator[Traces]:
    """A Jaeger that keeps its files in a folder, ended after the block."""
    if find_jaeger() is None:
        absent("jaeger", "just services")
    with asyncio.Runner() as runner:
        server = Jaeger(folder, (0,) * len(USUAL_PORTS))
        runner.run(server.start())
        try:
            yield Traces(server.otlp_url, server.ui_url)
        finally:
            runner.run(server.stop())


def _spans(found: dict[str, Any]) -> list[Seen]:
    return [
        _seen(span, _facts(group["resource"]))
        for group in found.get("resourceSpans", ())
        for scope in group["scopeSpans"]
        for span in scope["spans"]
    ]


def _seen(span: dict[str, Any], resource: dict[str, Any]) -> Seen:
    return Seen(
        span["traceId"],
        span["spanId"],
        span.get("parentSpanId", ""),
        span["name"],
        resource["service.name"],
        _facts(span),
        int(span["startTimeUnixNano"]),
        tuple((link["traceId"], link["spanId"]) for link in span.get("links", ())),
        span.get("status", {}).get("message", ""),
        resource["service.instance.id"],
        KINDS[span.get("kind", 0)],
    )


def _facts(of: dict[str, Any]) -> dict[str, Any]:
    return {one["key"]: _value(one["value"]) for one in of.get("attributes", ())}


def _value(value: dict[str, Any]) -> Any:
    ((kind, found),) = value.items()
    return int(found) if kind == "intValue" else found
