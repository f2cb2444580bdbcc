"""Shows the measurements of all processes on one page, in the text format of Prometheus or in OpenMetrics.

1. Numbers and labels alone: no name of a session, no subject of a token.
2. Every sample has the label `process`. `lucid_process_up` says which processes answered.
3. Exemplars, with the id of a trace, are in OpenMetrics alone: the older format has none.
4. `lucid_processes_missing` counts the processes without measurements on the page, by reason.
"""

import asyncio
from collections.abc import Iterable

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from schemas.ports import Jet
from schemas.ports.metrics import Meter, Samples, count_false
from streams.api.processes import Processes, Seen
from streams.pipeline.chunk_pool import ChunkPool

WORKER = "lucid_worker_partitions"
"""A family that each worker has."""


class Page(Collector):
    """The families of all processes, as one registry."""

    def __init__(self, seen: Seen) -> None:
        self._seen = seen

    def collect(self) -> Iterable[Metric]:
        seen = self._seen
        up = GaugeMetricFamily("lucid_process_up", "Whether the process answers.", labels=["process"])
        for process, is_up in seen.up.items():
            up.add_metric([process], is_up)
        missing = GaugeMetricFamily(
            "lucid_processes_missing", "Processes that the page tells nothing of.", labels=["why"]
        )
        for why, count in seen.missing.items():
            missing.add_metric([why], count)
        told = seen.families.get(WORKER)
        workers = len({one.labels["process"] for one in told.samples}) if told else 0
        running = GaugeMetricFamily("lucid_workers", "Processes that run the six stages.", value=workers)
        own = {family.name: family for family in (up, missing, running)}
        return [*own.values(), *(seen.families[name] for name in sorted(seen.families) if name not in own)]


class Metrics:
    """The page of one application."""

    def __init__(self, jet: Jet, own: Samples) -> None:
        self._processes = Processes(jet, own)
        self._encoding = asyncio.Lock()
        self._pages: dict[str, tuple[Seen, bytes]] = {}

    def leave(self, raw: bytes) -> None:
        """Take a process that has ended in order off the page."""
        self._processes.leave(raw)

    async def text(self, accept: str) -> tuple[bytes, str]:
        """The page, and its media type. accept: the header of the request."""
        seen = await self._processes.look()
        encode, media_type = choose_encoder(accept[:1000])
        async with self._encoding:  # many readers at once take one thread, and one page
            known, page = self._pages.get(media_type, (None, b""))
            if known is not seen:
                page = await asyncio.to_thread(lambda: encode(Page(seen)))
                self._pages[media_type] = seen, page
        return page, media_type


def measure_service(meter: Meter, service: str, version: str, pool: ChunkPool) -> None:
    """Show the service that this process is, and the pool of session-processor."""
    count_false(meter, "api")
    meter.rows(
        "lucid_service_info",
        "The service that a process is.",
        ("service", "version"),
        lambda: {(service, version): 1},
    )
    counts = pool.counts
    meter.rows(
        "lucid_processor_chunks",
        "Chunks of the processor by outcome.",
        ("outcome",),
        lambda: {
            ("done",): counts.done,
            ("failed",): counts.failed,
            ("refused",): counts.refused,
            ("late",): counts.late,
        },
        rises=True,
    )
    value, limits = meter.value, pool.limits
    value("lucid_processor_running", "Workers that are busy, late ones included.", lambda: pool.running)
    value("lucid_processor_waiting", "Chunks that wait for a worker.", lambda: pool.waiting)
    value("lucid_processor_workers", "Workers of the pool.", lambda: limits.workers)
    value("lucid_processor_queue_limit", "Chunks that may wait.", lambda: limits.queue)
    value("lucid_processor_body_bytes", "Bytes of the bodies that are held.", lambda: pool.held_bytes)
    value(
        "lucid_processor_body_limit_bytes", "Bytes of bodies that may be held.", lambda: limits.memory_bytes
    )
