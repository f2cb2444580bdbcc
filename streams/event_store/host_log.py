"""Registers the evidence key of each host, and lets no counter serve two sessions.

1. A host's key is registered on first use; another key is then denied.
2. A counter is taken in the log before the session is created. After a crash between the two the counter
   stays with its session, which asks again. So a uid, which names files and keys, never serves two sessions.
3. Each counter of a key has a subject of its own. One look tells whether it is free, however many were used;
   sessions of one host that begin at once do not conflict.
"""

from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from schemas import subjects
from schemas.errors import Conflict, Denied, RefusedByState, Unavailable
from schemas.events.commands import Create
from schemas.events.host import CounterTaken, HostRegistered, read_host_event
from schemas.format.jcs import jcs
from schemas.ports import Jet
from schemas.ports.messages import Message
from streams.scheduling.fair_slots import FairSlots
from streams.scheduling.retry import retry_conflicts

CREATES, CREATES_OF_HOST, CREATES_WAIT = 16, 4, 8
"""Sessions created at once, those of one key, and the requests of one key that may wait. All requests of one
key are less than half of those that the command service works on at once."""
KEYS_REMEMBERED = 4096


class HostLog:
    """The logs of all hosts."""

    def __init__(self, jet: Jet) -> None:
        self._jet = jet
        self._creating = FairSlots(CREATES, CREATES_OF_HOST)
        self._keys: OrderedDict[str, bytes] = OrderedDict()
        """By host. A registration is for ever, so it may be remembered."""

    async def key(self, host: str) -> bytes | None:
        """Return the registered evidence key; None: the host is not registered."""
        known = self._keys.get(host)
        if known is not None:
            self._keys.move_to_end(host)
            return known
        message = await self._jet.last(subjects.LIFECYCLE, subjects.host_log(host))
        event = read_host_event(message.data) if message else None
        if not isinstance(event, HostRegistered):
            return None
        self._keys[host] = event.key
        if len(self._keys) > KEYS_REMEMBERED:
            self._keys.popitem(last=False)
        return event.key

    @asynccontextmanager
    async def turn(self, create: Create) -> AsyncIterator[None]:
        """Hold one of the turns to create a session. The request's signature must have been checked.

        A turn belongs to the key, not to the name: a request under a foreign name uses its own turns.
        Raises Unavailable (create.busy).
        """
        key = create.host_key.hex()
        if self._creating.waiting_of(key) >= CREATES_WAIT:
            text = f"host {create.host} has asked for too many sessions at once"
            raise Unavailable(text, code="create.busy", hint="ask again")
        async with self._creating.turn(key):
            yield

    async def admit(self, create: Create) -> None:
        """Register the key of a request, and take its counter. The signature must have been checked.

        Safe to repeat. Raises Denied (host.key), RefusedByState (host.counter).
        """
        await self.register(create.host, create.host_key, create.at_us, create.who)
        await self._take_counter(create)

    async def register(self, host: str, key: bytes, at_us: int, who: str) -> None:
        """Register the host's evidence key. Raises Denied (host.key): another key is registered."""
        if await self.key(host) == key:  # most hosts are known
            return
        event = HostRegistered(host=host, key=key, at_us=at_us, who=who)
        first = await self._append_first(subjects.host_log(host), event, host)
        if first is not None:
            _same_key(first, host, key)

    async def _take_counter(self, create: Create) -> None:
        subject = subjects.counter(create.host_key, create.counter)
        event = CounterTaken(counter=create.counter, session=create.session)
        first = await self._append_first(subject, event, create.host)
        if first is not None and read_host_event(first.data) != event:
            raise RefusedByState(
                f"counter {create.counter} of host {create.host} belongs to another session",
                code="host.counter",
                hint="a host's folder was copied or restored; record under another host name",
            )

    async def _append_first(
        self, subject: str, event: HostRegistered | CounterTaken, host: str
    ) -> Message | None:
        """Append the only event of a subject; or return the message that is there already."""

        async def attempt() -> Message | None:
            try:
                await self._jet.append(subject, jcs(event.model_dump(mode="json")), 0)
            except Conflict:  # it was there before, or another process was first, or our ack was lost
                last = await self._jet.last(subjects.LIFECYCLE, subject)
                if last is None:
                    raise
                return last
            return None

        return await retry_conflicts(attempt, f"host {host}")


def _same_key(message: Message, host: str, key: bytes) -> None:
    event = read_host_event(message.data)
    if not isinstance(event, HostRegistered) or event.key != key:
        raise Denied(
            f"host {host} is registered with another evidence key",
            code="host.key",
            hint="use the host's own folder, or another host name",
        )
