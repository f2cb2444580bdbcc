"""Finds the sessions that wait for one stage, and the newest result of it, in CHUNKS and DEAD.

1. A session waits if its newest message for the stage has neither a result nor a dead letter.
2. A session of which only older chunks have no result does not wait: its own chunks have overtaken them.
3. Sessions of two hosts are enough for an answer: no more are looked for.
4. It is asked only of a stage that stands still. It costs three questions for NAMES_AT_ONCE sessions, and
   three for each that waits.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass

from handlers.lifecycle.stage_progress import Finished
from schemas import subjects
from schemas.errors import Rejected
from schemas.events.chunk import ChunkEvent, Dead, StageEvent
from schemas.events.upcast import read_chunk_event
from schemas.ports import Reader
from schemas.ports.messages import ConsumerInfo, Message
from schemas.types import Frozen
from streams.pipeline.stages import Stage

NAMES_AT_ONCE = 400
HOSTS_ENOUGH = 2


@dataclass(frozen=True, slots=True)
class StageView:
    """One stage as one of its consumers reads it."""

    jet: Reader
    stage: Stage
    consumer: ConsumerInfo

    async def outcomes(self) -> tuple[int, int]:
        """The sequences of the newest result in CHUNKS and of the newest dead letter in DEAD; 0: none."""
        results = [await self.jet.last(subjects.CHUNKS, one) for one in self._results()]
        letters = [
            await self.jet.last(subjects.DEAD, f"lucid.dead.{self.stage.verb}.{p}.*")
            for p in self._partitions()
        ]
        return _newest_seq(results), _newest_seq(letters)

    async def finished(self) -> Finished | None:
        """The newest result; None: there is none, or it is of a newer version."""
        found = [await self.jet.last(subjects.CHUNKS, one) for one in self._results()]
        newest = max(filter(None, found), key=lambda message: message.seq, default=None)
        event = _event(newest) if newest else None
        return Finished(event.session, event.recorded) if isinstance(event, StageEvent) else None

    async def waiting(self, names: Collection[str], host_of: Callable[[str], str]) -> Mapping[str, int]:
        """Of these sessions, and of the one with the newest message, those that wait.

        If they are of several hosts, one session of each of HOSTS_ENOUGH hosts.

        The value is the sequence of the `recorded` event of the first chunk that waits.
        """
        owned = set(self._partitions())
        mine = {name for name in names if owned & {"*", str(subjects.partition(name))}}
        mine |= {subjects.session_of(one.subject) for one in await self._newest_inputs()}
        found, by_host = list[str](), dict[str, str]()
        ordered = sorted(mine)
        for at in range(0, len(ordered), NAMES_AT_ONCE):
            for message in await self._unfinished(ordered[at : at + NAMES_AT_ONCE]):
                name = subjects.session_of(message.subject)
                found.append(name)
                by_host.setdefault(host_of(name), name)
            if len(by_host) >= HOSTS_ENOUGH:
                found = list(by_host.values())[:HOSTS_ENOUGH]
                break
        return {name: await self._first(name) for name in found}

    async def _unfinished(self, names: list[str]) -> list[Message]:
        """The newest message of each session that is above the floor, and has no outcome."""
        newest: dict[str, Message] = {}
        for step in self.stage.reads:
            for message in await self._lasts(subjects.CHUNKS, (subjects.chunk(step, name) for name in names)):
                name = subjects.session_of(message.subject)
                if message.seq > max(self.consumer.floor, newest[name].seq if name in newest else 0):
                    newest[name] = message
        makes, verb = self.stage.makes, self.stage.verb
        results = await self._lasts(subjects.CHUNKS, (subjects.chunk(makes, name) for name in newest))
        letters = await self._lasts(subjects.DEAD, (subjects.dead(verb, name) for name in newest))
        done = {(subjects.session_of(one.subject), _key(_event(one))) for one in (*results, *letters)}
        left = [message for name, message in newest.items() if (name, _key(_event(message))) not in done]
        return [message for message in left if not await self._has_result(message)]

    async def _has_result(self, message: Message) -> bool:
        """Whether a result stands behind the message: results are not in the order of the chunks."""
        key, name = _key(_event(message)), subjects.session_of(message.subject)
        if key is None:
            return False
        subject = subjects.chunk(self.stage.makes, name)
        async for result in self.jet.read_all(subjects.CHUNKS, subject, message.seq + 1):
            if _key(_event(result)) == key:
                return True
        return False

    async def _first(self, name: str) -> int:
        """When the session's first waiting chunk was recorded, or a lower bound of it."""
        result = await self.jet.last(subjects.CHUNKS, subjects.chunk(self.stage.makes, name))
        found = []
        for step in self.stage.reads:
            after = self.consumer.floor + 1
            messages, _ = await self.jet.batch(subjects.CHUNKS, subjects.chunk(step, name), after, 1)
            found += [_recorded(one) for one in messages]
        return max(min(found, default=0), _recorded(result) if result else 0)

    async def _newest_inputs(self) -> list[Message]:
        found = [
            await self.jet.last(subjects.CHUNKS, f"lucid.chunk.{step}.{p}.*")
            for step in self.stage.reads
            for p in self._partitions()
        ]
        return [message for message in found if message is not None]

    async def _lasts(self, stream: str, asked: Iterable[str]) -> list[Message]:
        wanted = list(asked)
        return list((await self.jet.lasts(stream, wanted, 0)).values()) if wanted else []

    def _results(self) -> list[str]:
        return [f"lucid.chunk.{self.stage.makes}.{p}.*" for p in self._partitions()]

    def _partitions(self) -> list[str]:
        """Of the consumer; `*` if it has all."""
        found = {one.split(".")[-2] for one in self.consumer.filters}
        return ["*"] if len(found) == subjects.PARTITIONS else sorted(found)


def _newest_seq(messages: Iterable[Message | None]) -> int:
    return max((message.seq for message in messages if message is not None), default=0)


def _event(message: Message) -> Frozen | None:
    """The event of a message; None: it is foreign, or of a newer version."""
    try:
        return read_chunk_event(message.data)
    except Rejected:
        return None


def _key(event: Frozen | None) -> tuple[int, int] | None:
    """Index and run of a chunk; None: the event is about none."""
    return (event.index, event.run) if isinstance(event, ChunkEvent | Dead) else None


def _recorded(message: Message) -> int:
    event = _event(message)
    return event.recorded if isinstance(event, StageEvent) else message.seq
