"""Asks the parts that a service depends on for their state, and remembers the answers for a while.

1. Requests that come together share one look: health needs no token, and costs the servers nothing more.
2. A remembered answer is at most as old as the caller allows.
3. A look may hang for ever. Nobody waits longer than LOOK_S for it, and only those that came while it was
   new; no second look at the same part begins beside it. The states of all other parts are told.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass

from schemas.api.service import Dependency
from schemas.config.logs import logger
from schemas.errors import LucidError

LOOK_S = 2.0
"""How long one part may take to answer."""
OK, SLOW, FAILED = "ok", "slow", "failed"
NAMED = frozenset(("stage.stalled", "worker.silent"))
"""Errors with the names of their parts in `place`; other places may be paths, which health does not tell."""

log = logger("lucid.api")

Look = Callable[[], Awaitable[object]]
"""Looks at one part. It raises LucidError, of which health tells the code."""


@dataclass(slots=True)
class _Part:
    look: Look
    state: str = ""
    names: str = ""
    seen_s: float = float("-inf")
    began_s: float = float("-inf")
    looking: "asyncio.Task[None] | None" = None


class Dependencies:
    """One for each application; used from one event loop."""

    def __init__(self, looks: Mapping[str, Look]) -> None:
        """looks: by the name of the part."""
        self._parts = {name: _Part(look) for name, look in looks.items()}

    async def states(self, oldest_s: float, names: Collection[str] | None = None) -> dict[str, Dependency]:
        """The state of each part, at most `oldest_s` old: ok, slow, failed, or the code of its error.

        names: of these parts alone.
        """
        clock_s = asyncio.get_running_loop().time
        parts = {name: part for name, part in self._parts.items() if names is None or name in names}
        for name, part in parts.items():
            if part.looking is None and clock_s() - part.seen_s >= oldest_s:
                part.began_s = clock_s()
                part.looking = asyncio.create_task(_look(part), name=f"look at {name}")
        for part in parts.values():
            rest_s = part.began_s + LOOK_S - clock_s()
            if part.looking is not None and rest_s > 0:
                await asyncio.wait({part.looking}, timeout=rest_s)
        return {name: _shown(part, clock_s()) for name, part in parts.items()}

    async def close(self) -> None:
        """End the looks under way."""
        looking = [part.looking for part in self._parts.values() if part.looking is not None]
        for task in looking:
            task.cancel()
        await asyncio.gather(*looking, return_exceptions=True)


async def _look(part: _Part) -> None:
    try:
        await part.look()
        part.state, part.names = OK, ""
    except TimeoutError:
        part.state, part.names = SLOW, ""
    except LucidError as error:
        part.state, part.names = error.code, error.place if error.code in NAMED else ""
    except Exception as error:  # a bug of one look: the others are told
        log.error("look_failed", error=repr(error), exc_info=error)
        part.state, part.names = FAILED, ""
    finally:
        part.seen_s, part.looking = asyncio.get_running_loop().time(), None


def _shown(part: _Part, now_s: float) -> Dependency:
    if part.looking is not None:
        return Dependency(state=SLOW, age_s=round(now_s - part.began_s, 3))
    return Dependency(state=part.state, age_s=round(now_s - part.seen_s, 3), names=part.names)
