"""What streams.api.dependencies promises."""

import asyncio

from schemas.errors import Unavailable
from streams.api.dependencies import Dependencies


class Parts:
    """Two parts, one of which can fail or hang; they count the looks at it."""

    def __init__(self) -> None:
        self.looks, self.fails, self.hangs = 0, "", asyncio.Event()
        self.hangs.set()
        self.dependencies = Dependencies({"nats": self._look, "views": lambda: asyncio.sleep(0)})

    async def states(self, oldest_s: float) -> list[str]:
        return [one.state for one in (await self.dependencies.states(oldest_s)).values()]

    async def _look(self) -> None:
        self.looks += 1
        await self.hangs.wait()
        if self.fails:
            raise Unavailable("gone", code=self.fails, place="a path")


async def test_a_state_is_remembered_as_long_as_the_caller_allows() -> None:
    """Breaks: anybody without a token makes the servers answer as often as they like."""
    parts = Parts()
    assert await parts.states(600) == ["ok", "ok"]
    parts.fails = "nats.down"
    assert await parts.states(600) == ["ok", "ok"]
    assert parts.looks == 1
    assert await parts.states(0) == ["nats.down", "ok"]
    assert await parts.states(600) == ["nats.down", "ok"]


async def test_requests_that_come_together_share_one_look() -> None:
    """Breaks: the same, by a thousand requests at once."""
    parts = Parts()
    await asyncio.gather(*(parts.states(600) for _ in range(100)))
    assert parts.looks == 1


async def test_a_part_that_hangs_is_told_as_slow_and_is_not_asked_twice() -> None:
    """Breaks: one dead disk makes readiness hang, and each question leaves another thread in it."""
    parts = Parts()
    parts.hangs.clear()
    for _ in range(3):
        assert await parts.states(0) == ["slow", "ok"]
    assert parts.looks == 1
    parts.hangs.set()
    await asyncio.sleep(0.01)
    assert await parts.states(0) == ["ok", "ok"]
    await parts.dependencies.close()


async def test_names_are_told_of_our_own_parts_alone() -> None:
    """Breaks: a stranger without a token reads paths of the machine, or nobody reads which stage stands."""
    parts = Parts()
    parts.fails = "disk.full"
    assert (await parts.dependencies.states(0))["nats"].names == ""
    parts.fails = "stage.stalled"
    assert (await parts.dependencies.states(0))["nats"].names == "a path"


async def test_a_bug_in_one_look_hides_no_other_part() -> None:
    """Breaks: readiness answers 500 instead of telling all that it knows."""

    async def broken() -> None:
        raise ZeroDivisionError

    dependencies = Dependencies({"broken": broken, "good": lambda: asyncio.sleep(0)})
    assert {name: one.state for name, one in (await dependencies.states(0)).items()} == {
        "broken": "failed",
        "good": "ok",
    }
