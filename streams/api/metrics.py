"""Shows the counters of this process in the text format of Prometheus.

1. Numbers and labels alone: no name of a session, no subject of a token.
2. Each application has a registry of its own; a later collector is registered beside these.
"""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Info, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from streams.pipeline.chunk_pool import ChunkPool

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class PoolCollector(Collector):
    """The pool of session-processor."""

    def __init__(self, pool: ChunkPool) -> None:
        self._pool = pool

    def collect(self) -> Iterator[Metric]:
        pool = self._pool
        ends = CounterMetricFamily(
            "lucid_processor_chunks", "Chunks of the processor by outcome.", labels=["outcome"]
        )
        counts = pool.counts
        for outcome, count in (
            ("done", counts.done),
            ("failed", counts.failed),
            ("refused", counts.refused),
            ("late", counts.late),
        ):
            ends.add_metric([outcome], count)
        yield ends
        for name, text, value in (
            ("running", "Workers that are busy, late ones included.", pool.running),
            ("waiting", "Chunks that wait for a worker.", pool.waiting),
            ("workers", "Workers of the pool.", pool.limits.workers),
            ("queue_limit", "Chunks that may wait.", pool.limits.queue),
            ("body_bytes", "Bytes of the bodies that are held.", pool.held_bytes),
            ("body_bytes_limit", "Bytes of bodies that may be held.", pool.limits.memory_bytes),
        ):
            yield GaugeMetricFamily(f"lucid_processor_{name}", text, value)


class Metrics:
    """The metrics of one application."""

    def __init__(self, service: str, version: str, pool: ChunkPool) -> None:
        self.registry = CollectorRegistry()
        Info("lucid_service", "The service that answers.", registry=self.registry).info(
            {"service": service, "version": version}
        )
        ProcessCollector(registry=self.registry)
        self.registry.register(PoolCollector(pool))

    def text(self) -> bytes:
        return generate_latest(self.registry)
