"""Shows the measurements of all processes on one page, in the text format of Prometheus or in OpenMetrics.

1. Numbers and labels alone: no name of a session, no subject of a token.
2. Every sample has the label `process`. `lucid_process_up` says which processes answered.
3. Exemplars, with the id of a trace, are in OpenMetrics alone: the older format has none.
4. A family whose name, type or samples are not valid is left out: the page stays valid.
"""

import asyncio
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

from prometheus_client.core import Exemplar, GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from schemas.ports import Jet
from schemas.ports.metrics import Answer, Meter, Samples, count_false
from streams.api.processes import Processes, Seen
from streams.pipeline.chunk_pool import ChunkPool

NAME = re.compile(r"[a-z][a-z0-9_]{0,99}")
SAMPLES_MOST = 50_000
WORKER = "lucid_worker_partitions"
"""A family that each worker has."""
ENDINGS = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_count", "_sum")}
"""By type of family, the endings of its samples' names."""


class Page(Collector):
    """The families of all processes, as one registry."""

    def __init__(self, seen: Seen) -> None:
        self._seen = seen

    def collect(self) -> Iterable[Metric]:
        up = GaugeMetricFamily("lucid_process_up", "Whether the process answers.", labels=["process"])
        for process, is_up in self._seen.up.items():
            up.add_metric([process], is_up)
        families: dict[str, Metric] = {}
        for process, answer in self._seen.answers.items():
            _add(families, process, answer)
        workers = (
            len({one.labels["process"] for one in families[WORKER].samples}) if WORKER in families else 0
        )
        count = GaugeMetricFamily("lucid_workers", "Processes that run the six stages.", value=workers)
        return [up, count, *(families[name] for name in sorted(families))]


class Metrics:
    """The page of one application."""

    def __init__(self, jet: Jet, own: Samples) -> None:
        self._processes = Processes(jet, own)
        self._encoding = asyncio.Lock()
        self._pages: dict[str, tuple[Seen, bytes]] = {}

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


def _add(families: dict[str, Metric], process: str, answer: Answer) -> None:
    """Add the families of one process."""
    with suppress(TypeError, ValueError, KeyError, AttributeError):
        for told in answer["families"]:
            name, kind = told["name"], told["type"]
            if NAME.fullmatch(name) is None or kind not in ENDINGS:
                continue
            family = families.setdefault(name, Metric(name, str(told["text"])[:300], kind))
            names = {name + ending for ending in ENDINGS[kind]}
            if family.type != kind:
                continue
            shown: set[tuple[str, ...]] = set()
            for sample in told["samples"][:SAMPLES_MOST]:
                _add_sample(family, names, process, sample, shown)


def _add_sample(
    family: Metric, names: Iterable[str], process: str, sample: Any, shown: set[tuple[str, ...]]
) -> None:
    """shown: the samples of this process that the family has already."""
    name, labels, value, exemplar = sample
    texts = {label: str(text)[:200] for label, text in labels.items()}
    key = (name, *(text for pair in sorted(texts.items()) for text in pair))
    if name not in names or key in shown or not all(map(NAME.fullmatch, texts)):
        return
    shown.add(key)
    trace = Exemplar(*exemplar) if exemplar and _is_exemplar(exemplar[0]) else None
    family.add_sample(name, {**texts, "process": process}, float(value), exemplar=trace)


def _is_exemplar(labels: Mapping[str, str]) -> bool:
    return set(labels) == {"trace_id"} and re.fullmatch("[0-9a-f]{32}", labels["trace_id"]) is not None
