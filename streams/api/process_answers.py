"""Reads the measurements that processes have answered, and joins them to the families of one page.

1. Every sample gets the label `process`. A process cannot set that label itself.
2. A family with an invalid name or type is left out, and so is an invalid sample: the page stays valid.
3. Small answers are read first. If all samples are too many, the largest answers are left out.
4. A family keeps the type that it had before. A new one has the type that most processes tell.
"""

import json
import math
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from types import MappingProxyType
from typing import Any, NamedTuple

from prometheus_client.core import Exemplar, Metric

SAMPLES_MOST = 100_000
"""Of all processes. 200 workers have 60,000."""
PROCESS = re.compile(r"[A-Za-z0-9_.@:-]{1,100}")
NAME = re.compile(r"[a-z][a-z0-9_]{0,99}")
TRACE_ID = re.compile("[0-9a-f]{32}")
ENDINGS = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_count", "_sum")}
"""By type of family, the endings of its samples' names."""

NOT_A_FAMILY = ("_total", "_bucket", "_count", "_sum", "_created")
"""Endings of samples. A family with one of them could stand in the way of another family."""
EXEMPLARS = ("_bucket", "_total")
"""Endings of the samples that may have an exemplar."""

Series = tuple[str, ...]
"""The name of a sample, then names and values of its labels."""
Families = Mapping[str, Metric]


class Read(NamedTuple):
    """families: by name. expected: names of processes that should run. left_out: a number of answers."""

    families: Families
    expected: frozenset[str]
    unreadable: frozenset[str]
    left_out: int


class _Joined:
    """One family with one type, of several processes."""

    def __init__(self, family: Metric) -> None:
        self.metric = Metric(family.name, family.documentation, family.type)
        self.processes: set[str] = set()

    def add(self, process: str, family: Metric) -> None:
        for sample in family.samples:
            sample.labels["process"] = process
        self.metric.samples.extend(family.samples)
        self.processes.add(process)


def read_answers(answers: Mapping[str, bytes], before: Mapping[str, Metric] = MappingProxyType({})) -> Read:
    """Return the families of all processes. answers: by the name of the process, as JSON.

    before: the families of the former look.
    """
    joined: dict[str, dict[str, _Joined]] = {}
    expected, unreadable = set[str](), set[str]()
    room, left_out = SAMPLES_MOST, 0
    for process, raw in sorted(answers.items(), key=lambda one: len(one[1])):
        told = _told(raw)
        if told is None:
            unreadable.add(process)
            continue
        expected |= told[1]
        count = sum(len(family.samples) for family in told[0])
        if count > room:
            left_out += 1
            continue
        room -= count
        for family in told[0]:
            by_type = joined.setdefault(family.name, {})
            by_type.setdefault(family.type, _Joined(family)).add(process, family)
    families = {name: _chosen(by_type, before.get(name)) for name, by_type in joined.items()}
    return Read(families, frozenset(expected), frozenset(unreadable), left_out)


def _told(raw: bytes) -> tuple[list[Metric], set[str]] | None:
    """The valid families of one answer, and the processes that it expects; None: it is no answer."""
    with suppress(ValueError, TypeError, KeyError, AttributeError, RecursionError):
        answer, shown = json.loads(raw), set[Series]()
        expects = {name for name in answer.get("expects", ()) if PROCESS.fullmatch(name)}
        return [family for told in answer["families"] if (family := _family(told, shown))], expects
    return None


def _family(told: Any, shown: set[Series]) -> Metric | None:
    """One family, or None: it is not valid. shown: the series that the answer had before."""
    with suppress(ValueError, TypeError, KeyError, AttributeError):
        name, kind = told["name"], told["type"]
        if NAME.fullmatch(name) is None or name.endswith(NOT_A_FAMILY) or kind not in ENDINGS:
            return None
        family = Metric(name, _clean(told["text"])[:300], kind)
        names = {name + ending for ending in ENDINGS[kind]}
        for sample in told["samples"]:
            with suppress(ValueError, TypeError, AttributeError, OverflowError):
                _add_sample(family, names, sample, shown)
        return family
    return None


def _add_sample(family: Metric, names: Iterable[str], sample: Any, shown: set[Series]) -> None:
    name, labels, value, exemplar = sample
    texts = {label: _clean(text)[:200] for label, text in labels.items() if label != "process"}
    series = (name, *(text for pair in sorted(texts.items()) for text in pair))
    if name not in names or series in shown or not all(map(NAME.fullmatch, texts)):
        return
    family.add_sample(name, texts, float(value), exemplar=_exemplar(name, exemplar) if exemplar else None)
    shown.add(series)


def _exemplar(name: str, told: Any) -> Exemplar | None:
    labels, value, at_s = told[0], float(told[1]), float(told[2])
    is_whole = set(labels) == {"trace_id"} and math.isfinite(value) and math.isfinite(at_s)
    if not is_whole or not name.endswith(EXEMPLARS) or TRACE_ID.fullmatch(labels["trace_id"]) is None:
        return None
    return Exemplar(labels, value, at_s)


def _clean(text: object) -> str:
    """Text that has an encoding: JSON may hold half of a character."""
    return str(text).encode(errors="replace").decode()


def _chosen(by_type: Mapping[str, _Joined], before: Metric | None) -> Metric:
    """The family with its former type; if there is none, with the type that most processes tell."""
    if before is not None and before.type in by_type:
        return by_type[before.type].metric
    return max(by_type.values(), key=lambda one: len(one.processes)).metric
