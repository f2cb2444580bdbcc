"""Asks the parts that a service depends on for their state, and remembers the answers for a while.

1. Requests that come together share one look: health needs no token, and costs the servers nothing more.
2. A remembered answer is at most as old as the caller allows.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from schemas.errors import LucidError

LOOK_S = 2.0
"""How long one part may take to answer."""
OK, SLOW = "ok", "slow"

Looks = Callable[[], Mapping[str, Awaitable[object]]]
"""Begins one look at each part, by its name. A look that raises has failed."""


class Dependencies:
    """One for each application; used from one event loop."""

    def __init__(self, looks: Looks) -> None:
        self._looks, self._turn = looks, asyncio.Lock()
        self._states: dict[str, str] = {}
        self._seen_s = float("-inf")

    async def states(self, oldest_s: float) -> dict[str, str]:
        """The state of each part, at most `oldest_s` old: ok, slow, or the code of its error."""
        async with self._turn:
            now_s = asyncio.get_running_loop().time()
            if now_s - self._seen_s >= oldest_s:
                looks = self._looks()
                found = await asyncio.gather(*map(_state, looks.values()))
                self._states, self._seen_s = dict(zip(looks, found, strict=True)), now_s
            return self._states


async def _state(look: Awaitable[object]) -> str:
    try:
        async with asyncio.timeout(LOOK_S):
            await look
    except TimeoutError:
        return SLOW
    except LucidError as error:
        return error.code
    return OK
