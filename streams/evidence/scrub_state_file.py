"""Writes the state of the scrub, one state after the other, while this process owns the file.

1. A state is taken only when the write before it has ended: an older one never replaces a newer one.
2. Callers that wait together share one write, which holds the changes of all of them.
3. A caller that is cancelled ends no write. After `release` nothing is written: another process may own
   the file.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from schemas.events.scrub import ScrubState, write_state
from schemas.ports.scrub_place import ScrubPlace


@dataclass(slots=True)
class StateFile:
    """One for each scrub. newest: the state as it is now. Used from one event loop."""

    place: ScrubPlace
    newest: Callable[[], ScrubState]
    _one: asyncio.Lock = field(default_factory=asyncio.Lock)
    _next: "asyncio.Task[None] | None" = None
    """The write that has not begun: it takes every change that is made until then."""
    _released: bool = False

    async def write(self) -> None:
        """Return when all changes until now are durable. Raises Unavailable, NoSpace (scrub.state)."""
        if self._next is None:
            self._next = asyncio.create_task(self._write())
        await asyncio.shield(self._next)

    async def _write(self) -> None:
        async with self._one:
            self._next = None
            if not self._released:
                await asyncio.to_thread(self.place.write, write_state(self.newest()))

    async def release(self) -> None:
        """Let another process become the owner, once the write under way has ended."""
        async with self._one:
            self._released = True
            self.place.release()
