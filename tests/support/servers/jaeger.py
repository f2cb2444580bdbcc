"""A real Jaeger on loopback, and the traces that it has, read back through its API."""

import asyncio
import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from infra.processes.jaeger import USUAL_PORTS, Jaeger, find_jaeger
from tests.support.machine.absent import absent

MISSING = 404


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


@dataclass(frozen=True)
class Traces:
    """The traces of one Jaeger."""

    otlp_url: str
    ui_url: str

    def spans(self, trace_id: str) -> list[Seen]:
        """Every span of a trace, in order of its beginning; none: Jaeger does not know the trace."""
        try:
            with urllib.request.urlopen(f"{self.ui_url}/api/v3/traces/{trace_id}", timeout=30) as answer:
                found = json.load(answer)["result"]
        except urllib.error.HTTPError as error:
            if error.code != MISSING:
                raise
            return []
        seen = [
            _seen(span, _facts(group["resource"]))
            for group in found.get("resourceSpans", ())
            for scope in group["scopeSpans"]
            for span in scope["spans"]
        ]
        return sorted(seen, key=lambda one: one.began_ns)


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
    )


def _facts(of: dict[str, Any]) -> dict[str, Any]:
    return {one["key"]: _value(one["value"]) for one in of.get("attributes", ())}


def _value(value: dict[str, Any]) -> Any:
    ((kind, found),) = value.items()
    return int(found) if kind == "intValue" else found
