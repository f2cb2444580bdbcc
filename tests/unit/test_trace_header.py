"""What infra.services.trace_header promises."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from infra.access.jwks import KeySet
from infra.services.health import ask_health
from schemas.errors import Unavailable
from schemas.ports.telemetry import CURRENT

ABOVE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Noting(BaseHTTPRequestHandler):
    """Notes the traceparent of each request."""

    def do_GET(self) -> None:
        assert isinstance(self.server, NotingServer)
        self.server.noted.append((self.path, self.headers.get("traceparent")))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None: ...


class NotingServer(ThreadingHTTPServer):
    noted: list[tuple[str, str | None]]


@contextmanager
def noting() -> Iterator[tuple[str, list[tuple[str, str | None]]]]:
    with NotingServer(("127.0.0.1", 0), Noting) as server:
        server.noted = []
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", server.noted
        server.shutdown()


@pytest.mark.parametrize(("propagators", "sent"), [("", ABOVE), ("none", None)])
async def test_other_services_are_told_the_span_that_asks_them(
    propagators: str, sent: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks: a slow auth service cannot be followed from our trace into its own."""
    monkeypatch.setenv("OTEL_PROPAGATORS", propagators)
    with noting() as (url, noted):
        CURRENT.set(ABOVE)
        await ask_health(url)
        keys = KeySet(f"{url}/jwks")
        with pytest.raises(Unavailable):  # it told none
            await keys.key("a", "EdDSA")
        await keys.close()
    assert noted == [("/health", sent), ("/jwks", sent)]


async def test_work_without_a_span_tells_none() -> None:
    """Breaks: other services see a parent that nobody can find."""
    with noting() as (url, noted):
        await ask_health(url)
    assert noted == [("/health", None)]
