"""Reads the variables of OpenTelemetry (OTEL_*) that the SDK leaves to the program.

    off without an endpoint, with OTEL_SDK_DISABLED=true, or with OTEL_TRACES_EXPORTER=none

1. The SDK reads the rest by itself: endpoint, headers, time-out, certificates, resource attributes, batch.
2. A start with a wrong value was refused (otel_variables.py): here the default stands in its place.
3. Nothing here imports the SDK.
"""

import os
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import urlsplit

from schemas.ports.telemetry import LINKS_MOST, Fact

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
DEFAULT_DELAY_MS = 1000.0
"""The SDK's own default of 5 s shows a recording late."""
FACTS_MOST = 128
QUEUE_SPANS = 2048


class Sampling(NamedTuple):
    """Which traces are kept. ratio: of those that begin here. parent_based: a parent decides."""

    ratio: float = 1.0
    parent_based: bool = True


class SpanLimits(NamedTuple):
    """How much one span holds. chars: of a text; negative: any."""

    facts: int = FACTS_MOST
    chars: int = -1
    links: int = LINKS_MOST

    def within(self, facts: dict[str, Fact]) -> dict[str, Fact]:
        """Return the facts that fit, the first ones, with texts that fit."""
        if self.chars < 0 and len(facts) <= self.facts:
            return facts
        return {name: self._cut(fact) for name, fact in list(facts.items())[: self.facts]}

    def _cut(self, fact: Fact) -> Fact:
        return fact[: self.chars] if self.chars >= 0 and isinstance(fact, str) else fact


def is_on(server: str = "", environ: Mapping[str, str] = os.environ) -> bool:
    """Whether spans are to be exported. server: one that needs no variable; empty: there is none."""
    disabled = environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
    exporter = environ.get("OTEL_TRACES_EXPORTER", "").strip().lower()
    return not disabled and exporter != "none" and bool(server or _endpoint(environ))


def propagates(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether contexts of other services are taken, and ours are sent to them (OTEL_PROPAGATORS)."""
    return environ.get("OTEL_PROPAGATORS", "").strip().lower() != "none"


def server_place(server: str = "", environ: Mapping[str, str] = os.environ) -> str:
    """Return host and port of the server that spans go to, without credentials and path."""
    return urlsplit(server or _endpoint(environ)).netloc.rpartition("@")[2]


def sampling(environ: Mapping[str, str] = os.environ) -> Sampling:
    """Return the sampler that OTEL_TRACES_SAMPLER names, with OTEL_TRACES_SAMPLER_ARG."""
    name = environ.get("OTEL_TRACES_SAMPLER", "").strip().lower()
    parent_based = name.startswith("parentbased_") or not name
    match name.removeprefix("parentbased_"):
        case "always_off":
            return Sampling(0.0, parent_based)
        case "traceidratio":
            return Sampling(_ratio(environ.get("OTEL_TRACES_SAMPLER_ARG", "")), parent_based)
        case "always_on":
            return Sampling(1.0, parent_based)
    return Sampling()


def span_limits(environ: Mapping[str, str] = os.environ) -> SpanLimits:
    """Return the limits of spans. Those of spans alone win over those of everything."""
    return SpanLimits(
        _number(environ, FACTS_MOST, "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "OTEL_ATTRIBUTE_COUNT_LIMIT"),
        _number(environ, -1, "OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT", "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT"),
        _number(environ, LINKS_MOST, "OTEL_SPAN_LINK_COUNT_LIMIT"),
    )


def service_name(default: str, environ: Mapping[str, str] = os.environ) -> str:
    """Return the name of the service; empty: OTEL_SERVICE_NAME or the resource attributes have one."""
    attributes = environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
    named = environ.get("OTEL_SERVICE_NAME", "").strip() or "service.name=" in attributes
    return "" if named else default


def delay_ms(environ: Mapping[str, str] = os.environ) -> float:
    """Return how long an ended span waits for others, at most."""
    try:
        return max(float(environ.get("OTEL_BSP_SCHEDULE_DELAY", "")), 1.0)
    except ValueError:
        return DEFAULT_DELAY_MS


def queue_spans(environ: Mapping[str, str] = os.environ) -> int:
    """Return how many ended spans wait at most."""
    return _number(environ, QUEUE_SPANS, "OTEL_BSP_MAX_QUEUE_SIZE")


def _endpoint(environ: Mapping[str, str]) -> str:
    return next(filter(None, (environ.get(name, "").strip() for name in ENDPOINTS)), "")


def _ratio(text: str) -> float:
    try:
        given = float(text)
    except ValueError:
        return 1.0
    return given if 0.0 <= given <= 1.0 else 1.0


def _number(environ: Mapping[str, str], default: int, *names: str) -> int:
    """The value of the first of these that is set."""
    text = next(filter(None, (environ.get(name, "").strip() for name in names)), "")
    return int(text) if text.isdecimal() else default
