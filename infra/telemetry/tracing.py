"""Implements the port Tracer with the SDK of OpenTelemetry, exported over OTLP and HTTP.

1. A span is light while it is open. It becomes a span of the SDK when it ends, if its trace is kept.
2. So its id can depend on the outcome: an attempt that failed before it sent anything gets an id of its own.
3. The SDK samples, batches, encodes and sends. infra/telemetry/span_export.py bounds all of it.
Source: docs/observability.md; W3C Trace Context; OpenTelemetry's conventions for messaging.
"""

import secrets
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from contextvars import Token
from pathlib import Path
from types import TracebackType
from typing import Self

from opentelemetry.sdk.trace.sampling import Decision, TraceIdRatioBased

from infra.telemetry.ended_span import EndedSpan
from infra.telemetry.otel_environment import Sampling, SpanLimits
from infra.telemetry.span_export import SpanExport
from schemas.config.logs import masked
from schemas.errors import LucidError
from schemas.ports.telemetry import CURRENT, Fact, Facts, Kind, Span
from schemas.telemetry.trace_context import TraceContext, span_of

DEFAULTS = SpanLimits()
TEXT_MOST = 300
"""Characters of an error's text in a span."""


class OtelTracer:
    """The port Tracer. Made by `tracer`."""

    on = True

    def __init__(
        self,
        export: SpanExport,
        sampling: Sampling,
        limits: SpanLimits = DEFAULTS,
        *,
        propagates: bool = True,
    ) -> None:
        self._export, self._sampling, self._limits = export, sampling, limits
        self.propagates = propagates
        self._sampler = TraceIdRatioBased(sampling.ratio)

    def span(
        self,
        name: str,
        kind: Kind = "internal",
        parent: str = "",
        *,
        trace: bytes = b"",
        key: str = "",
        like: str = "",
    ) -> Span:
        above = TraceContext.parse(parent) if parent else None
        if above is None:
            trace_id = trace.hex() or secrets.token_hex(16)
            sampled = self._begins_sampled(trace_id, like)
        else:
            trace_id = above.trace_id
            sampled = above.sampled if self._sampling.parent_based else self._by_ratio(trace_id)
        span_id = span_of(trace_id, key) if key else secrets.token_hex(8)
        context = TraceContext(trace_id, span_id, sampled)
        if not sampled:
            return _Unsampled(context)
        return _Open(self._export, name, kind, context, above, (self._limits, bool(key)))

    def context(self, trace: bytes, key: str, like: str = "") -> str:
        trace_id = trace.hex()
        return str(TraceContext(trace_id, span_of(trace_id, key), self._begins_sampled(trace_id, like)))

    @property
    def dropped(self) -> Mapping[str, int]:
        return self._export.dropped

    async def kept(self) -> None:
        await self._export.kept()

    def close(self) -> None:
        self._export.close()

    def _begins_sampled(self, trace_id: str, like: str) -> bool:
        cause = TraceContext.parse(like) if like and self._sampling.parent_based else None
        return self._by_ratio(trace_id) if cause is None else cause.sampled

    def _by_ratio(self, trace_id: str) -> bool:
        return self._sampler.should_sample(None, int(trace_id, 16), "").decision is Decision.RECORD_AND_SAMPLE


class _Unsampled:
    """A span of a trace that is not kept: it hands the decision on."""

    __slots__ = ("_token", "context")
    recording = False

    def __init__(self, context: TraceContext) -> None:
        self.context = context
        self._token: Token[str] | None = None

    @property
    def traceparent(self) -> str:
        return str(self.context)

    def rename(self, name: str) -> None: ...

    def since(self, began_ns: int) -> None: ...

    def set(self, facts: Facts) -> None: ...

    def link(self, traceparent: str) -> None: ...

    def fail(self, error: BaseException, *, sent: bool = True) -> None: ...

    def end(self) -> None: ...

    def __enter__(self) -> Self:
        self._token = CURRENT.set(self.traceparent)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        token, self._token = self._token, None
        if token is not None:
            with suppress(ValueError):  # ended in another context: that one keeps its own
                CURRENT.reset(token)
        if error is not None:
            self.fail(error)
        self.end()


class _Open(_Unsampled):
    """A span that is kept."""

    __slots__ = (
        *("_above", "_began_ns", "_error", "_export", "_facts"),
        *("_has_key", "_kind", "_limits", "_links", "_name"),
    )
    recording = True

    def __init__(
        self,
        export: SpanExport,
        name: str,
        kind: Kind,
        context: TraceContext,
        above: TraceContext | None,
        more: tuple[SpanLimits, bool],
    ) -> None:
        """more: its limits, and whether it has a key."""
        super().__init__(context)
        self._export: SpanExport | None = export
        self._name, self._kind, self._above = name, kind, above
        self._began_ns = time.time_ns()
        self._facts: dict[str, Fact] = {}
        self._links: list[TraceContext] = []
        self._error = ""
        self._limits, self._has_key = more

    def rename(self, name: str) -> None:
        self._name = name

    def since(self, began_ns: int) -> None:
        self._began_ns = began_ns or self._began_ns

    def set(self, facts: Facts) -> None:
        self._facts.update(facts)

    def link(self, traceparent: str) -> None:
        context = TraceContext.parse(traceparent)
        if context is not None and len(self._links) < self._limits.links:
            self._links.append(context)

    def fail(self, error: BaseException, *, sent: bool = True) -> None:
        if self._has_key and not sent:
            self.context = self.context._replace(span_id=secrets.token_hex(8))
        code = error.code if isinstance(error, LucidError) else type(error).__name__
        self._facts["error.type"] = code
        self._error = masked(f"{error!s}"[: 4 * TEXT_MOST])[:TEXT_MOST] or code

    def end(self) -> None:
        export, self._export = self._export, None
        if export is None:
            return
        context = self.context
        export.add(
            EndedSpan(
                self._name,
                self._kind,
                context.trace_id,
                context.span_id,
                "" if self._above is None else self._above.span_id,
                self._began_ns,
                time.time_ns(),
                self._limits.within(self._facts),
                _names(self._links),
                self._error,
            )
        )


def _names(links: Sequence[TraceContext]) -> list[tuple[str, str]]:
    return [(link.trace_id, link.span_id) for link in links]


def tracer(service: str, version: str, folder: Path | None, server: str = "") -> OtelTracer:
    """Return a tracer that exports as the environment says, or to the server at this URL.

    service: its name unless OTEL_SERVICE_NAME is set. folder: for the spans that wait, so that they survive a
    kill of this process; None: they do not.
    """
    from infra.telemetry.otel_environment import propagates, sampling, span_limits
    from infra.telemetry.span_export import exported

    export = exported(service, version, folder, server)
    return OtelTracer(export, sampling(), span_limits(), propagates=propagates())
