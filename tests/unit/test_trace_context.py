"""What schemas.telemetry.trace_context promises."""

import pytest

from schemas.telemetry.trace_context import TraceContext, chunk_trace, span_of, stretch_trace

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.mark.parametrize(
    ("text", "sampled"),
    [(f"00-{TRACE}-{SPAN}-01", True), (f"00-{TRACE}-{SPAN}-00", False), (f"cc-{TRACE}-{SPAN}-03", True)],
)
def test_a_traceparent_is_read(text: str, sampled: bool) -> None:
    """Breaks: a host's trace ends at the platform."""
    assert TraceContext.parse(text) == (TRACE, SPAN, sampled)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x" * 3000,
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01\n",
        f"00-{TRACE}-{SPAN}-01-more",
    ],
)
def test_what_is_no_traceparent_is_none(text: str) -> None:
    """Breaks: a host's header makes spans that no server takes, or a header that NATS refuses."""
    assert TraceContext.parse(text) is None


def test_a_context_is_written_as_it_was_read() -> None:
    """Breaks: a later process reads another span than an earlier one named."""
    context = TraceContext(TRACE, SPAN, True)
    assert TraceContext.parse(str(context)) == context


def test_ids_follow_from_session_and_number() -> None:
    """Breaks: two owners of a session, or two attempts, give one chunk two traces."""
    uid = bytes(range(16))
    ids = [stretch_trace(uid, 0), stretch_trace(uid, 1), chunk_trace(uid, 0), chunk_trace(uid, 1)]
    assert len({*ids, uid}) == 5
    assert stretch_trace(uid, 0).hex() == "827225d3464bf97b306b10ac0b53fdf8"
    assert chunk_trace(uid, 0).hex() == "e4d5514f53a81bc31d80be5bd2db8f69"
    assert span_of(TRACE, "store.7") == "8244c220a7626e56"
