"""Asks another service whether it answers: GET /health, without a token.

1. The answer is bounded in time, and its body is not read.
2. /health asks no other service, so two that ask each other do not go on without end.
"""

import asyncio
import ssl
from functools import cache

from infra.services.trace_header import HOOKS
from schemas.errors import Unavailable

ASK_S = 2.0


@cache
def _trust() -> ssl.SSLContext:
    """The certificates that this machine trusts: to read them takes longer than to ask."""
    return ssl.create_default_context()


async def ask_health(url: str) -> None:
    """Return when the service at this URL answers 200.

    Raises Unavailable (service.unreachable, service.slow, service.unhealthy).
    """
    import httpx  # a process that asks no other service never needs it

    try:
        async with (
            asyncio.timeout(ASK_S),
            httpx.AsyncClient(timeout=ASK_S, verify=_trust(), event_hooks=HOOKS) as client,
            client.stream("GET", f"{url}/health") as answer,
        ):
            status = answer.status_code
    except (TimeoutError, httpx.TimeoutException):
        raise Unavailable(f"{url} does not answer in {ASK_S:g} s", code="service.slow") from None
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
        raise Unavailable(
            f"{url} cannot be reached: {type(error).__name__}", code="service.unreachable"
        ) from None
    if status != httpx.codes.OK:
        raise Unavailable(f"{url} answers {status} to /health", code="service.unhealthy")
