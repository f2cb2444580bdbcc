"""The port of measurements: counters, histograms, and rows that are read when somebody asks.

1. A name begins with `lucid_` and ends with its unit: `_bytes`, `_seconds`. A counter's name here lacks its
   `_total`.
2. Labels have few values: stages, states, codes, routes. A session is never a label.
3. A second call with the same name and labels returns the same instrument.
4. `NO_METER` measures nothing and costs nothing: it is the default of every part.
"""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from schemas.telemetry.trace_context import TraceContext

Rows = Mapping[tuple[str, ...], float]
"""Values by the values of their labels, in the order of the labels' names."""
Answer = dict[str, Any]
"""The samples of one process: JSON of `process`, `instance`, `began_us`, `expects` and `families`.

They come in this order. began_us: when the process began; older processes lack it. expects: names of
processes that should run beside it.
A family has `name`, `type`, `text` and `samples`. A sample is [name, labels, value, exemplar]. An exemplar
is null, or [labels, value, time in s].
"""

SHORT_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
"""Bounds of a histogram of times, s."""


class Counter(Protocol):
    """A number that only rises."""

    def add(self, count: float = 1) -> None: ...


class Histogram(Protocol):
    """How many values lie below each bound."""

    def observe(self, value: float, trace_id: str = "") -> None:
        """trace_id: of the trace that shows this value; empty: there is none."""


class Meter(Protocol):
    """The measurements of one process. Any thread may call."""

    def counter(self, name: str, text: str, **labels: str) -> Counter:
        """The counter of these labels; it begins at 0 and is shown from then on."""

    def histogram(
        self, name: str, text: str, bounds: tuple[float, ...] = SHORT_S, **labels: str
    ) -> Histogram:
        """The histogram of these labels."""

    def value(self, name: str, text: str, read: Callable[[], float]) -> None:
        """As `rows`, with one row without labels."""

    def rows(
        self, name: str, text: str, labels: tuple[str, ...], read: Callable[[], Rows], *, rises: bool = False
    ) -> None:
        """Show the rows that `read` returns, whenever somebody asks; it must not block.

        rises: the values are counters. A second call with the same name replaces the first one.
        """


class Samples(Protocol):
    """The measurements of one process, for others."""

    process: str
    expects: tuple[str, ...]

    def sample(self) -> bytes:
        """All values now: an Answer as JSON."""

    def head(self) -> bytes:
        """The head of an Answer, which names this run of the process."""


class _Nothing:
    """An instrument that does nothing."""

    def add(self, count: float = 1) -> None:
        """Do nothing."""

    def observe(self, value: float, trace_id: str = "") -> None:
        """Do nothing."""


_NOTHING = _Nothing()


class NoMeter:
    """Measures nothing."""

    def counter(self, name: str, text: str, **labels: str) -> Counter:
        return _NOTHING

    def histogram(
        self, name: str, text: str, bounds: tuple[float, ...] = SHORT_S, **labels: str
    ) -> Histogram:
        return _NOTHING

    def value(self, name: str, text: str, read: Callable[[], float]) -> None:
        """Do nothing."""

    def rows(
        self, name: str, text: str, labels: tuple[str, ...], read: Callable[[], Rows], *, rises: bool = False
    ) -> None:
        """Do nothing."""


NO_METER = NoMeter()


def count_error(meter: Meter, code: str) -> None:
    """Count one error that was answered, or that ended a job."""
    meter.counter("lucid_errors", "Errors by code.", code=code).add()


def count_false(meter: Meter, where: str) -> Counter:
    """The count of evidence that was found to be false at one place: a stage, `seal`, `api`."""
    text = "Evidence that was found to be false."
    return meter.counter("lucid_verification_failures", text, where=where)


def trace_id_of(headers: Mapping[str, str]) -> str:
    """The id of the sampled trace that a message belongs to; empty: none (W3C Trace Context)."""
    found = TraceContext.parse(headers.get("traceparent", ""))
    return found.trace_id if found and found.sampled else ""
