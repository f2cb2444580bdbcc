"""Reads the variables of OpenTelemetry (OTEL_*) that the SDK leaves to the program.

    off without an endpoint, with OTEL_SDK_DISABLED=true, or with OTEL_TRACES_EXPORTER=none

1. The SDK reads the rest by itself: endpoint, headers, time-out, certificates, resource attributes.
2. A wrong value does not stop a recording system: the default stands in its place.
3. Nothing here imports the SDK.
"""

import os
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import urlsplit

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
DEFAULT_DELAY_MS = 1000.0
"""The SDK's own default of 5 s shows a recording late."""


class Sampling(NamedTuple):
    """Which traces are kept. ratio: of those that begin here. parent_based: a parent decides."""

    ratio: float = 1.0
    parent_based: bool = True


def is_on(server: str = "", environ: Mapping[str, str] = os.environ) -> bool:
    """Whether spans are to be exported. server: one that needs no variable; empty: there is none."""
    disabled = environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
    exporter = environ.get("OTEL_TRACES_EXPORTER", "").strip().lower()
    return not disabled and exporter != "none" and bool(server or _endpoint(environ))


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


def _endpoint(environ: Mapping[str, str]) -> str:
    return next(filter(None, (environ.get(name, "").strip() for name in ENDPOINTS)), "")


def _ratio(text: str) -> float:
    try:
        given = float(text)
    except ValueError:
        return 1.0
    return given if 0.0 <= given <= 1.0 else 1.0
