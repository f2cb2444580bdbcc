"""Keeps the measurements of this process in one registry of prometheus_client, and tells them as JSON.

1. A counter costs one addition under a lock of its own. A caller that adds often keeps its object.
2. A family has at most SERIES_MOST series, of histograms HISTOGRAMS_MOST. Later labels are counted under
   OTHER. So one answer fits into a message.
3. Rows are read at the moment when somebody asks. A reader that fails leaves out its own rows alone.
4. prometheus_client is imported with the first registry: most commands of `lucid` measure nothing.
"""

import json
import secrets
import time
from collections.abc import Callable, Iterable
from functools import lru_cache
from threading import Lock
from typing import TYPE_CHECKING, Any

from schemas.config.logs import logger
from schemas.ports.metrics import SHORT_S, Answer, Rows

if TYPE_CHECKING:
    from prometheus_client import Counter, Histogram
    from prometheus_client.metrics_core import Metric

SERIES_MOST, HISTOGRAMS_MOST = 500, 150
OTHER = "other"
CREATED = "_created"
"""Ending of samples that are left out: they would double the page, and no rule of ours reads them."""

log = logger("lucid.metrics")


class Meter:
    """The ports Meter and Samples."""

    def __init__(self, process: str, expects: tuple[str, ...] = ()) -> None:
        from prometheus_client import CollectorRegistry, ProcessCollector

        self.process, self.expects = process, expects
        self._instance, self._began_us = secrets.token_hex(4), time.time_ns() // 1000
        self._registry = CollectorRegistry()
        self._families: dict[str, _Family] = {}
        self._rows: dict[str, _Rows] = {}
        self._lock = Lock()
        ProcessCollector(registry=self._registry)

    def counter(self, name: str, text: str, **labels: str) -> "_Counter":
        from prometheus_client import Counter

        def make(label_names: tuple[str, ...]) -> Any:
            return Counter(name, text, label_names, registry=self._registry)

        return _Counter(self._family(name, labels, make, SERIES_MOST).child(labels))

    def histogram(
        self, name: str, text: str, bounds: tuple[float, ...] = SHORT_S, **labels: str
    ) -> "_Histogram":
        from prometheus_client import Histogram

        def make(label_names: tuple[str, ...]) -> Any:
            return Histogram(name, text, label_names, registry=self._registry, buckets=bounds)

        return _Histogram(self._family(name, labels, make, HISTOGRAMS_MOST).child(labels))

    def value(self, name: str, text: str, read: Callable[[], float]) -> None:
        self.rows(name, text, (), lambda: {(): read()})

    def rows(
        self, name: str, text: str, labels: tuple[str, ...], read: Callable[[], Rows], *, rises: bool = False
    ) -> None:
        self._rows[name] = _Rows(name, text, labels, read, rises)

    def sample(self) -> bytes:
        families = [
            *self._registry.collect(),
            *filter(None, (rows.collect() for rows in self._rows.values())),
        ]
        answer: Answer = {
            "process": self.process,
            "instance": self._instance,
            "began_us": self._began_us,
            "expects": self.expects,
            "families": [_told(family) for family in families],
        }
        return json.dumps(answer, separators=(",", ":")).encode()

    def head(self) -> bytes:
        head = {"process": self.process, "instance": self._instance, "began_us": self._began_us}
        return json.dumps(head).encode()

    def _family(
        self, name: str, labels: dict[str, str], make: Callable[[tuple[str, ...]], Any], most: int
    ) -> "_Family":
        with self._lock:
            if name not in self._families:
                self._families[name] = _Family(make(tuple(labels)), most)
            return self._families[name]


class _Family:
    """One name with its series by labels."""

    def __init__(self, made: Any, most: int) -> None:
        self._made, self._most = made, most
        self._series: dict[tuple[str, ...], Any] = {}

    def child(self, labels: dict[str, str]) -> Any:
        if not labels:
            return self._made
        key = tuple(labels.values())
        found = self._series.get(key)
        if found is None:
            if len(self._series) >= self._most:
                return self._made.labels(**dict.fromkeys(labels, OTHER))
            found = self._series[key] = self._made.labels(**labels)
        return found


class _Counter:
    """The port Counter."""

    def __init__(self, series: "Counter") -> None:
        self.add = series.inc


class _Histogram:
    """The port Histogram."""

    def __init__(self, series: "Histogram") -> None:
        self._series = series

    def observe(self, value: float, trace_id: str = "") -> None:
        self._series.observe(value, _exemplar(trace_id) if trace_id else None)


class _Rows:
    """The rows of one name."""

    def __init__(
        self, name: str, text: str, labels: tuple[str, ...], read: Callable[[], Rows], rises: bool
    ) -> None:
        self._name, self._text, self._labels, self._read, self._rises = name, text, labels, read, rises

    def collect(self) -> "Metric | None":
        from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily

        kind = CounterMetricFamily if self._rises else GaugeMetricFamily
        family = kind(self._name, self._text, labels=self._labels)
        try:
            for values, number in self._read().items():
                family.add_metric(values, number)
        except Exception as error:
            log.warning("rows_unread", name=self._name, error=error)
            return None
        return family


def _told(family: "Metric") -> dict[str, Any]:
    samples: Iterable[Any] = (one for one in family.samples if not one.name.endswith(CREATED))
    return {
        "name": family.name,
        "type": family.type,
        "text": family.documentation,
        "samples": [
            (
                one.name,
                one.labels,
                one.value,
                (one.exemplar.labels, one.exemplar.value, one.exemplar.timestamp) if one.exemplar else None,
            )
            for one in samples
        ],
    }


@lru_cache(8)
def _exemplar(trace_id: str) -> dict[str, str]:
    return {"trace_id": trace_id}
