"""What streams.api.dependencies promises."""

import asyncio
from collections.abc import Awaitable

from schemas.errors import Unavailable
from streams.api.dependencies import Dependencies


class Parts:
    """Two parts, one of which can fail; they count the looks at them."""

    def __init__(self) -> None:
        self.looks, self.fails = 0, False

    def __call__(self) -> dict[str, Awaitable[object]]:
        return {"nats": self._look(), "views": asyncio.sleep(0)}

    async def _look(self) -> None:
        self.looks += 1
        if self.fails:
            raise Unavailable("gone", code="nats.down")


async def test_a_state_is_remembered_as_long_as_the_caller_allows() -> None:
    """Breaks: anybody without a token makes the servers answer as often as they like."""
    parts = Parts()
    dependencies = Dependencies(parts)
    assert await dependencies.states(600) == {"nats": "ok", "views": "ok"}
    parts.fails = True
    assert (await dependencies.states(600))["nats"] == "ok"
    assert parts.looks == 1
    assert await dependencies.states(0) == {"nats": "nats.down", "views": "ok"}
    assert (await dependencies.states(600))["nats"] == "nats.down"


async def test_requests_that_come_together_share_one_look() -> None:
    """Breaks: the same, by a thousand requests at once."""
    parts = Parts()
    dependencies = Dependencies(parts)
    await asyncio.gather(*(dependencies.states(600) for _ in range(100)))
    assert parts.looks == 1
