"""The port of traces: the spans of one process, and the context that goes with messages.

1. No method raises, waits for a server, or needs one. A span that cannot be kept is dropped.
2. A `traceparent` names a span. It travels in headers, never in sealed bytes.
3. A span with a `key` has the same id at each attempt: the message of an earlier attempt names it, too. If
   an attempt fails before it has sent anything, its span has an id of its own.
4. NO_TRACES keeps nothing and makes no objects: traces are off.
"""

from collections.abc import Mapping
from contextvars import ContextVar
from types import TracebackType
from typing import Literal, Protocol, Self

from schemas.telemetry.trace_context import TraceContext

Fact = str | int | float | bool
Facts = Mapping[str, Fact]
Kind = Literal["internal", "server", "client", "producer", "consumer"]
DROPS = QUEUE_FULL, EXPORT_FAILED = "queue", "export"
"""Why an ended span was dropped: too many waited, or the server did not take it."""
LINKS_MOST = 128
"""Links of one span; more are dropped."""

CURRENT: ContextVar[str] = ContextVar("traceparent", default="")
"""The traceparent of the span around this task; empty: there is none."""
REQUEST: ContextVar[str] = ContextVar("request id", default="")
"""The id of the request over HTTP that this task serves; empty: it serves none."""


class Span(Protocol):
    """One piece of work. As a context manager it is CURRENT inside, and an error that leaves it fails it."""

    @property
    def recording(self) -> bool:
        """Whether facts are kept: they need not be gathered otherwise."""

    @property
    def traceparent(self) -> str:
        """Return the header of messages that this span sends; empty: traces are off."""

    def rename(self, name: str) -> None:
        """Give it a name that is known only now: one of few."""

    def since(self, began_ns: int) -> None:
        """The work began earlier than its span, ns since 1970; 0: it did not."""

    def set(self, facts: Facts) -> None:
        """Add facts, by their names in the conventions of OpenTelemetry; those of ours begin with lucid."""

    def link(self, traceparent: str) -> None:
        """Name a span of another trace. An ill-formed text is ignored."""

    def fail(self, error: BaseException, *, sent: bool = True) -> None:
        """Note the error that ended the work. sent: a message may name this span already."""

    def end(self) -> None:
        """The work is done. A second call does nothing."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


class Tracer(Protocol):
    """Begins spans. Any number of tasks and threads may call at once."""

    @property
    def on(self) -> bool: ...

    @property
    def propagates(self) -> bool:
        """Whether the contexts of other services are taken."""

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
        """Begin a span. name: one of few, never with an id in it.

        parent: a traceparent, which decides whether the trace is kept. Without a well-formed one a trace
        begins: `trace` is its id (16 bytes; empty: a random one). It is kept if that of the traceparent
        `like` is; without `like` the sampler decides.
        """

    def context(self, trace: bytes, key: str, like: str = "") -> str:
        """Return the traceparent of the span with this key in this trace, begun or not; empty: off."""

    @property
    def dropped(self) -> Mapping[str, int]:
        """The ended spans that were dropped, by one of DROPS."""

    async def kept(self) -> None:
        """Return when a kill of this process loses no span that has ended. A slow disk is not waited for."""

    def close(self) -> None:
        """Send the spans that wait, within some seconds, and drop the rest. Blocks."""


class _NoSpan:
    recording = False
    traceparent = ""

    def rename(self, name: str) -> None: ...

    def since(self, began_ns: int) -> None: ...

    def set(self, facts: Facts) -> None: ...

    def link(self, traceparent: str) -> None: ...

    def fail(self, error: BaseException, *, sent: bool = True) -> None: ...

    def end(self) -> None: ...

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None: ...


class _NoTraces:
    on = False
    propagates = True
    dropped: Mapping[str, int] = dict.fromkeys(DROPS, 0)

    def span(self, *_: object, **__: object) -> Span:
        return NO_SPAN

    def context(self, trace: bytes, key: str, like: str = "") -> str:
        return ""

    async def kept(self) -> None: ...

    def close(self) -> None: ...


def child(tracer: Tracer, name: str, kind: Kind = "internal", above: str = "", *, key: str = "") -> Span:
    """Begin a span below this traceparent; empty: below CURRENT. It begins no trace without one."""
    parent = above or CURRENT.get()
    if not tracer.on or TraceContext.parse(parent) is None:
        return NO_SPAN
    return tracer.span(name, kind, parent, key=key)


NO_SPAN: Span = _NoSpan()
NO_TRACES: Tracer = _NoTraces()
