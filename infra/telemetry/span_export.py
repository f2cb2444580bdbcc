"""Exports ended spans over OTLP: in batches, in a thread of the SDK, from a bounded queue.

1. `add` never waits. If the queue is full, the oldest spans are dropped.
2. If the server is away, refuses or hangs, spans are dropped and one line is logged each WARN_S. The loggers
   of the SDK are silent.
3. `close` takes at most CLOSE_S, also with a server that never answers.
4. Spans in the queue are in a journal, too (span_journal.py). The spans that a killed process left are
   exported by the next process with the same folder.
"""

import json
import logging
import threading
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags

from infra.telemetry.otel_environment import delay_ms, server_place, service_name
from infra.telemetry.span_journal import SpanJournal, take_over
from schemas.config.logs import logger

WARN_S = 60.0
CLOSE_S = 3.0
LEFT_OVER_WAITING, LOOK_S = 512, 0.05
"""While more spans wait, none of an ended process is added."""
KINDS = {kind.name.lower(): kind for kind in SpanKind}
SAMPLED = TraceFlags(TraceFlags.SAMPLED)
SCOPE = InstrumentationScope("lucid")
TRACES_PATH = "v1/traces"
SILENCED = ("opentelemetry", "urllib3")

log = logger("lucid.traces")


class EndedSpan(NamedTuple):
    """A span as it is noted and exported. Ids are hex; times are ns since 1970."""

    name: str
    kind: str
    trace_id: str
    span_id: str
    parent_id: str
    began_ns: int
    ended_ns: int
    facts: dict[str, Any]
    links: Sequence[Sequence[str]]
    """Trace id and span id of each."""
    error: str


class _Numbered(ReadableSpan):
    """A span of the SDK with its number in the journal. It is made here, not begun by the SDK's tracer."""

    number = 0


class SpanExport:
    """The export of one process."""

    def __init__(self, exporter: SpanExporter, place: str, resource: Resource, folder: Path | None) -> None:
        """place: of the server, for the log. folder: of the journal."""
        self._resource, self._folder = resource, folder
        self._journal = _journal(folder, resource)
        self._processor = BatchSpanProcessor(
            _Watched(exporter, place, self._journal), schedule_delay_millis=delay_ms()
        )
        self._closed = False
        if folder is not None:
            threading.Thread(target=self._take_over, args=(folder,), daemon=True).start()

    def add(self, span: EndedSpan) -> None:
        """Export a span soon."""
        self._add(span, self._resource)

    def close(self) -> None:
        """Export the spans that wait, or give them up after CLOSE_S."""
        if self._closed:
            return
        self._closed = True
        ending = threading.Thread(target=self._processor.shutdown, daemon=True)
        ending.start()
        ending.join(CLOSE_S)
        if self._journal is not None:
            self._journal.close()

    def _add(self, span: EndedSpan, resource: Resource) -> bool:
        """Returns whether the journal keeps the span until it is exported."""
        made, is_kept = _made(span, resource), False
        if self._journal is not None:
            made.number, is_kept = self._journal.add(span)
        self._processor.on_end(made)
        return is_kept

    def _take_over(self, folder: Path) -> None:
        journal = self._journal

        def give(attributes: dict[str, Any], line: Sequence[Any]) -> bool:
            # No faster than the exporter: a full queue would drop spans, also those of this process.
            while journal is not None and journal.waiting > LEFT_OVER_WAITING and not self._closed:
                time.sleep(LOOK_S)
            if self._closed:
                return False
            try:
                return self._add(EndedSpan(*line), Resource(attributes))
            except (TypeError, ValueError, KeyError):  # of another version
                return True

        take_over(folder, give)


class _Watched(SpanExporter):
    """Reports failures in our log, and tells the journal which spans are over."""

    def __init__(self, exporter: SpanExporter, place: str, journal: SpanJournal | None) -> None:
        self._exporter, self._place, self._journal = exporter, place, journal
        self._dropped = 0
        self._warn_s = 0.0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        try:
            result = self._exporter.export(spans)
        except Exception:
            result = SpanExportResult.FAILURE
        if self._journal is not None:
            self._journal.forget(
                max((span.number for span in spans if isinstance(span, _Numbered)), default=0)
            )
        if result is not SpanExportResult.SUCCESS:
            self._warn(len(spans))
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._exporter.force_flush(timeout_millis)

    def _warn(self, dropped: int) -> None:
        self._dropped += dropped
        if time.monotonic() >= self._warn_s:
            self._warn_s = time.monotonic() + WARN_S
            log.warning("traces_not_exported", to=self._place, spans=self._dropped, again_s=WARN_S)
            self._dropped = 0


def exported(service: str, version: str, folder: Path | None, server: str) -> SpanExport:
    """Return an export to the server at this URL; empty: to the one that the environment names."""
    for name in SILENCED:
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    named = service_name(service)
    attributes = {"service.name": named} if named else {}
    more = {"service.version": version, "service.instance.id": str(uuid.uuid4())}
    exporter = OTLPSpanExporter(endpoint=f"{server}/{TRACES_PATH}") if server else OTLPSpanExporter()
    return SpanExport(exporter, server_place(server), Resource.create({**attributes, **more}), folder)


def _journal(folder: Path | None, resource: Resource) -> SpanJournal | None:
    if folder is None:
        return None
    try:
        return SpanJournal(folder, json.loads(resource.to_json())["attributes"])
    except OSError as error:
        log.info("spans_without_journal", folder=folder, why=error.strerror)
        return None


def _made(span: EndedSpan, resource: Resource) -> _Numbered:
    trace_id = int(span.trace_id, 16)
    return _Numbered(
        name=span.name,
        context=SpanContext(trace_id, int(span.span_id, 16), False, SAMPLED),
        parent=SpanContext(trace_id, int(span.parent_id, 16), True, SAMPLED) if span.parent_id else None,
        resource=resource,
        attributes=span.facts,
        links=[Link(SpanContext(int(trace, 16), int(one, 16), True, SAMPLED)) for trace, one in span.links],
        kind=KINDS[span.kind],
        status=Status(StatusCode.ERROR, span.error) if span.error else Status(),
        start_time=span.began_ns,
        end_time=span.ended_ns,
        instrumentation_scope=SCOPE,
    )
