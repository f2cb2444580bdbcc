"""How streams/api lets requests in: rates, headers, origins."""

from typing import Any, cast

import httpx
import pytest
from fastapi import FastAPI
from starlette.responses import PlainTextResponse

from schemas.access import Caller, Role
from schemas.errors import Unauthenticated, Unavailable
from streams.api import rate_limit
from streams.api.auth import Admission, allow_origins, bearer
from streams.api.rate_limit import RateLimits, TooMany, network_of

MID_MINUTE_S = 1_800_000_030.0


@pytest.fixture(autouse=True)
def still_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """No minute ends during a test: behind its end the requests before it count for less than one each."""
    monkeypatch.setattr(rate_limit.time, "time", lambda: MID_MINUTE_S)


class Tokens:
    """Each token is the name of its caller."""

    async def caller(self, token: str, address: str = "") -> Caller:
        if token == "down":
            raise Unavailable("the auth service has not told its keys yet", code="access.keys")
        return Caller(token, frozenset({Role.ADMIN}), address)

    async def close(self) -> None:
        """Nothing is open."""


def client(app: Any, address: str = "10.0.0.1") -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app, client=(address, 4711))
    return httpx.AsyncClient(transport=transport, base_url="http://lucid")


def limited(a_caller: int, an_address: int) -> Admission:
    return Admission(PlainTextResponse("in"), cast(Any, Tokens()), RateLimits(a_caller, an_address))


def by(name: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {name}"}


async def test_a_caller_that_asks_too_often_is_told_when_to_ask_again() -> None:
    """Breaks: one program takes the API from all others."""
    app = limited(3, 0)
    async with client(app) as one:
        answers = [await one.get("/x", headers=by("alice")) for _ in range(5)]
        assert [answer.status_code for answer in answers] == [200, 200, 200, 429, 429]
        assert [answer.headers["ratelimit-remaining"] for answer in answers[:4]] == ["2", "1", "0", "0"]
        assert answers[0].headers["ratelimit-limit"] == "3"
        assert 1 <= int(answers[3].headers["retry-after"]) <= 60
        assert answers[3].json()["code"] == "api.rate"
        assert (await one.get("/x", headers=by("bob"))).status_code == 200
    async with client(app, "10.0.0.2") as other:
        assert (await other.get("/x", headers=by("alice"))).status_code == 429


async def test_an_address_is_limited_also_without_a_token() -> None:
    """Breaks: a stranger keeps the API busy with requests that it refuses."""
    app = limited(0, 3)
    async with client(app) as one:
        told = [(await one.get(path)).status_code for path in ("/x", "/health", "/x", "/x", "/health")]
        assert told == [401, 200, 401, 429, 429]
    async with client(app, "10.0.0.2") as other:
        assert (await other.get("/health")).status_code == 200


async def test_an_outage_of_the_auth_service_is_no_refusal() -> None:
    """Breaks: clients throw good tokens away."""
    async with client(limited(0, 0)) as one:
        answer = await one.get("/x", headers=by("down"))
    assert (answer.status_code, "retry-after" in answer.headers) == (503, True)


def test_an_ipv6_customer_has_one_limit_for_all_its_addresses() -> None:
    """Breaks: a caller passes by the limit with another of its 2^64 addresses."""
    assert network_of("2001:db8::1") == network_of("2001:db8::ffff:1") != network_of("2001:db8:0:1::1")
    assert network_of("::ffff:10.0.0.1") == network_of("10.0.0.1") != network_of("10.0.0.2")
    assert network_of("unix") == "unix"


def test_counters_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks: a caller with many names takes all memory."""
    monkeypatch.setattr(rate_limit, "KEYS_MOST", 10)
    limits = RateLimits(2, 0)
    for number in range(1000):
        limits.count_caller(f"c{number}")
    assert len(limits._limiter.storage._counts) == 10
    limits.count_caller("c999")
    with pytest.raises(TooMany):
        limits.count_caller("c999")


def test_a_limit_ends_with_its_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks: a caller that was too quick once is refused for ever."""
    now_s = 1_700_000_000.0
    for module in (rate_limit.time, __import__("limits").storage.memory.time):
        monkeypatch.setattr(module, "time", lambda: now_s)
    limits = RateLimits(2, 0)
    assert limits.count_caller("alice")
    assert limits.count_caller("alice")
    with pytest.raises(TooMany):
        limits.count_caller("alice")
    now_s += 130
    window = limits.count_caller("alice")
    assert window is not None
    assert window.left == 1


@pytest.mark.parametrize(
    "headers", [[], ["Bearer"], ["Bearer  "], ["Basic x"], ["Bearer a", "Bearer b"], [""]]
)
def test_only_one_bearer_header_is_a_token(headers: list[str]) -> None:
    """Breaks: two readers of one request see two callers."""
    with pytest.raises(Unauthenticated):
        bearer(headers)
    assert bearer([" bEARER  abc "]) == "abc"


async def test_pages_of_named_origins_may_call() -> None:
    """Breaks: the console of the house cannot use the API."""
    app = FastAPI()
    app.add_middleware(Admission, tokens=Tokens(), limits=RateLimits(0, 0))
    allow_origins(app, ("https://console.example",))
    preflight = {
        "Access-Control-Request-Method": "PUT",
        "Access-Control-Request-Headers": "authorization,if-match",
    }
    async with client(app) as one:
        for origin, status in (("https://console.example", 200), ("https://evil.example", 400)):
            answer = await one.options("/api/v1/sessions/a", headers={"Origin": origin, **preflight})
            allowed = answer.headers.get("access-control-allow-origin")
            assert (answer.status_code, allowed) == (status, origin if status == 200 else None)
            assert "access-control-allow-credentials" not in answer.headers
        answer = await one.get("/api/v1/sessions", headers={"Origin": "https://console.example"})
        assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (
            *(401, "https://console.example"),
        )
