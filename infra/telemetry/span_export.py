"""Exports ended spans over OTLP: in batches, in a thread of the SDK, from a bounded queue.

1. `add` never waits, and never touches a disk. If the queue is full, the oldest spans are dropped.
2. If the server is away, refuses or hangs, spans are dropped and counted (watched_exporter.py). The loggers
   of the SDK are silent.
3. `close` takes at most CLOSE_S, also with a server that never answers, and a moment for the journal.
4. Spans in the queue are in a journal, too (span_journal.py). The spans that a killed process left are
   exported by the next process with the same folder.
"""

import json
import logging
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter

from infra.telemetry.ended_span import EndedSpan, QueuedSpan, sdk_span
from infra.telemetry.journal_thread import JournalThread
from infra.telemetry.otel_environment import delay_ms, queue_spans, server_place, service_name
from infra.telemetry.span_journal import SpanJournal, take_over
from infra.telemetry.watched_exporter import WatchedExporter
from schemas.config.logs import logger

CLOSE_S = 3.0
LEFT_OVER_WAITING, LOOK_S = 512, 0.05
"""While more spans wait, none of an ended process is added."""
TRACES_PATH = "v1/traces"
SILENCED = ("opentelemetry", "urllib3")

log = logger("lucid.traces")


class SpanExport:
    """The export of one process."""

    def __init__(self, exporter: SpanExporter, place: str, resource: Resource, folder: Path | None) -> None:
        """place: of the server, for the log. folder: of the journal."""
        self._resource, self._folder = resource, folder
        self._journal = _journal(folder, resource)
        self._watched = WatchedExporter(exporter, place, queue_spans(), self._exported)
        self._processor = BatchSpanProcessor(
            self._watched, max_queue_size=queue_spans(), schedule_delay_millis=delay_ms()
        )
        self._lock = threading.Lock()
        """Numbers, journal and queue have one order. Nothing below it waits."""
        self._number = 0
        self._closed = False
        if folder is not None:
            threading.Thread(target=self._take_over, args=(folder,), daemon=True).start()

    @property
    def dropped(self) -> Mapping[str, int]:
        """Spans that were dropped, by reason."""
        return self._watched.dropped(self._number)

    def add(self, span: EndedSpan) -> None:
        """Export a span soon."""
        self._add(span, self._resource)

    async def kept(self) -> None:
        """Return when the spans so far survive a kill (journal_thread.py)."""
        if self._journal is not None:
            await self._journal.kept()

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

    def _add(self, span: EndedSpan, resource: Resource) -> int:
        """Returns the number of the span."""
        with self._lock:
            number = self._number = self._number + 1
            if self._journal is not None:
                self._journal.add(number, span)
            self._processor.on_end(QueuedSpan(number, span, resource))
        self._watched.look(number)
        return number

    def _exported(self, number: int) -> None:
        """The spans up to this number are exported, or dropped."""
        if self._journal is not None:
            self._journal.forget(number)

    def _take_over(self, folder: Path) -> None:
        journal = self._journal

        def give(attributes: dict[str, Any], line: Sequence[Any]) -> bool:
            # No faster than the exporter: a full queue would drop spans, also those of this process.
            while self._watched.waiting(self._number) > LEFT_OVER_WAITING and not self._closed:
                time.sleep(LOOK_S)
            if self._closed:
                return False
            try:
                span = EndedSpan(*line)
                sdk_span(QueuedSpan(0, span, Resource(attributes)))
            except (TypeError, ValueError, KeyError):  # of another version
                return True
            number = self._add(span, Resource(attributes))
            return journal is not None and journal.is_kept(number)

        take_over(folder, give)


def exported(service: str, version: str, folder: Path | None, server: str) -> SpanExport:
    """Return an export to the server at this URL; empty: to the one that the environment names."""
    for name in SILENCED:
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    named = service_name(service)
    attributes = {"service.name": named} if named else {}
    more = {"service.version": version, "service.instance.id": str(uuid.uuid4())}
    exporter = OTLPSpanExporter(endpoint=f"{server}/{TRACES_PATH}") if server else OTLPSpanExporter()
    return SpanExport(exporter, server_place(server), Resource.create({**attributes, **more}), folder)


def _journal(folder: Path | None, resource: Resource) -> JournalThread | None:
    if folder is None:
        return None
    try:
        return JournalThread(SpanJournal(folder, json.loads(resource.to_json())["attributes"]))
    except OSError as error:
        log.info("spans_without_journal", folder=folder, why=error.strerror)
        return None
