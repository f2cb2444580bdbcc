"""Counts the spans that are dropped, by reason, and reports them in our log, one line each WARN_S.

Spans have numbers in the order of the queue, and a full queue drops the oldest ones. So the numbers between
two batches are those of dropped spans, also while a server hangs.
"""

import threading
import time
from collections.abc import Callable, Sequence

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from infra.telemetry.ended_span import QueuedSpan, sdk_span
from schemas.config.logs import logger
from schemas.ports.telemetry import EXPORT_FAILED, QUEUE_FULL

WARN_S = 60.0

log = logger("lucid.traces")


class WatchedExporter(SpanExporter):
    """Makes the spans of the SDK, exports them, and says which are over."""

    def __init__(
        self, exporter: SpanExporter, place: str, queue_spans: int, done: Callable[[int], None]
    ) -> None:
        """place: of the server, for the log. done: called with the last number of each batch."""
        self._exporter, self._place, self._queue_spans, self._done = exporter, place, queue_spans, done
        self._taken = 0
        """The last number that left the queue."""
        self._failed = self._skipped = self._told = 0
        self._warn_s = 0.0
        self._telling = threading.Lock()

    def waiting(self, number: int) -> int:
        """How many spans wait or were dropped unseen, up to this number."""
        return max(number - self._taken, 0)

    def dropped(self, number: int) -> dict[str, int]:
        """How many spans were dropped, up to this number, by reason."""
        unseen = max(self.waiting(number) - self._queue_spans, 0)
        return {QUEUE_FULL: self._skipped + unseen, EXPORT_FAILED: self._failed}

    def look(self, number: int) -> None:
        """A span with this number has come: report it if the queue is full."""
        if number - self._taken > self._queue_spans:
            self._tell(number)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        queued = [span for span in spans if isinstance(span, QueuedSpan)]
        if not queued:
            return SpanExportResult.SUCCESS
        first, last = queued[0].number, queued[-1].number
        self._skipped, self._taken = self._skipped + first - 1 - self._taken, last
        try:
            result = self._exporter.export([sdk_span(one) for one in queued])
        except Exception:
            result = SpanExportResult.FAILURE
        if result is not SpanExportResult.SUCCESS:
            self._failed += len(queued)
            self._tell(last)
        self._done(last)
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._exporter.force_flush(timeout_millis)

    def _tell(self, number: int) -> None:
        if time.monotonic() < self._warn_s or not self._telling.acquire(blocking=False):
            return
        try:
            self._warn_s = time.monotonic() + WARN_S
            dropped = sum(self.dropped(number).values())
            log.warning("traces_not_exported", to=self._place, spans=dropped - self._told, again_s=WARN_S)
            self._told = dropped
        finally:
            self._telling.release()
