"""What streams.api.measured counts."""

import httpx
import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from infra.telemetry.metrics import Meter
from streams.api.measured import Measured


async def bug(_: Request) -> Response:
    raise RuntimeError("a bug")


async def fine(_: Request) -> Response:
    return Response()


@pytest.mark.parametrize(("path", "status"), [("/bug", "5xx"), ("/fine", "2xx")])
async def test_the_answer_to_a_bug_is_counted(path: str, status: str) -> None:
    """Breaks: a service that answers nothing but bugs has no error in its measurements, and wakes nobody."""
    meter = Meter("api")
    app = Starlette(
        routes=[Route("/bug", bug), Route("/fine", fine)],
        middleware=[Middleware(Measured, meter=meter)],
    )
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        await client.get(path)
    sample = meter.sample().decode()
    assert status in sample
    assert ("api.bug" in sample) is (path == "/bug")
