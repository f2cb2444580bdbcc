"""A tracer that keeps its spans in memory; for tests."""

from dataclasses import dataclass, field
from typing import Any

from infra.telemetry.ended_span import EndedSpan
from infra.telemetry.otel_environment import Sampling
from infra.telemetry.tracing import OtelTracer


@dataclass
class KeptSpans:
    """The spans that would be exported."""

    spans: list[EndedSpan] = field(default_factory=list)

    def add(self, span: EndedSpan) -> None:
        self.spans.append(span)

    async def kept(self) -> None:
        """They are in memory: nothing is to be waited for."""

    def tracer(self, ratio: float = 1.0) -> OtelTracer:
        export: Any = self
        return OtelTracer(export, Sampling(ratio))
