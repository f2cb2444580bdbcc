"""Stores the list of unfinished sessions, so that a service starts without reading the whole log.

    lucid.open.part   names, at most PART_BYTES of them a message
    lucid.open.head   position in LIFECYCLE, and the sequences of the parts

1. The list is derived from LIFECYCLE and true up to `position`; the reader folds all later events. So a
   crash between any two writes, an old list or a lost list costs time at the next start, nothing else.
2. Parts are durable before the head that names them. Several conductors may write. A head expects the head
   that its writer has read; only the winner removes parts older than its own.
3. If the stream or a part is gone, the list is made once from each session's last event (60 µs each).
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from pydantic import BaseModel, ConfigDict, ValidationError

from schemas import subjects
from schemas.buffers import Bytes
from schemas.config.logs import logger
from schemas.errors import Conflict, LucidError, NotFound, Rejected
from schemas.events.commands import Trigger
from schemas.events.session import State, Transition
from schemas.ports import Jet, Reader
from schemas.ports.messages import Message
from streams.event_store.session_log import read_event
from streams.scheduling.retry import retry

PART_BYTES = 256 << 10
EVERY_EVENTS, EVERY_S = 1000, 60.0
"""The list is written again after so many events, or after so many seconds if there was any event."""
LOOK_S = 5.0
LASTS, LASTS_AT_ONCE = 500, 4
"""Last events in one answer, and answers under way at once."""

log = logger("lucid.directory")


@dataclass(frozen=True, slots=True)
class OpenSessions:
    """The unfinished sessions after the event at stream sequence `position` of LIFECYCLE."""

    position: int = 0
    names: tuple[str, ...] = ()
    sealed: Mapping[str, int] = field(default_factory=dict)
    """Sealed sessions with a source that may still be there, by the time of their seal in µs."""


class _Head(BaseModel):
    model_config = ConfigDict(frozen=True)

    version: int = 1
    position: int
    parts: tuple[int, ...]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True)

    names: tuple[str, ...] = ()
    sealed: dict[str, int] = {}


async def read_open(jet: Reader) -> OpenSessions:
    """The newest list, or a list made from the log. Raises Unavailable."""
    found = await _read_list(jet)
    return found if found is not None else await list_from_log(jet)


async def list_from_log(jet: Reader) -> OpenSessions:
    """The list by the last event of each session; a session with any other last event counts as open."""
    position = (await jet.info(subjects.LIFECYCLE)).last_seq
    log.info("open_sessions_made_anew", position=position)
    logs = list(await jet.subject_counts(subjects.LIFECYCLE, subjects.ALL_LIFECYCLE))
    names: list[str] = []
    sealed: dict[str, int] = {}
    at_once = asyncio.Semaphore(LASTS_AT_ONCE)

    async def look(some: list[str]) -> None:
        async with at_once:
            found = await jet.lasts(subjects.LIFECYCLE, some, position)
        for subject in some:
            name = subjects.session_of(subject)
            if subjects.SESSION_ID.fullmatch(name) and name not in subjects.RESERVED_IDS:
                if (last := _closing_event(found.get(subject))) is None:
                    names.append(name)
                elif last.to_state == State.STOPPED:
                    sealed[name] = last.at_us

    async with asyncio.TaskGroup() as tasks:
        for start in range(0, len(logs), LASTS):
            tasks.create_task(look(logs[start : start + LASTS]))
    return OpenSessions(position, tuple(names), sealed)


def _closing_event(message: Message | None) -> Transition | None:
    """The event of the message if it ends a session: sealed, or destroyed and shredded."""
    if message is None:
        return None
    with suppress(Rejected):
        event = read_event(message.data)
        if isinstance(event, Transition) and event.trigger in (
            Trigger.STOP_COMPLETE,
            Trigger.CLEANUP_COMPLETE,
        ):
            return event
    return None


async def _read_list(jet: Reader) -> OpenSessions | None:
    while True:
        try:
            found = await jet.last(subjects.OPEN, subjects.OPEN_HEAD)
        except NotFound:
            return None
        head = _read_head(found.data) if found else None
        if found is None or head is None:
            return None
        if head.position > (await jet.info(subjects.LIFECYCLE)).last_seq:
            return None  # the log was restored to an older state
        parts = await jet.get_many(subjects.OPEN, head.parts)
        if len(parts) == len(head.parts):
            return _joined(head, [parts[seq].data for seq in head.parts])
        again = await jet.last(subjects.OPEN, subjects.OPEN_HEAD)
        if again is None or again.seq == found.seq:
            return None
        # Another conductor has written a newer list meanwhile, and removed these parts.


async def write_open(jet: Jet, now: OpenSessions) -> None:
    """Make `now` the newest list, unless there is a newer one. Raises LucidError."""
    found = await jet.last(subjects.OPEN, subjects.OPEN_HEAD)
    held = _read_head(found.data) if found else None
    if held is not None and now.position < held.position <= (await jet.info(subjects.LIFECYCLE)).last_seq:
        return  # a head beyond the log belongs to a log that was restored to an older state: replace it
    seqs = [
        (await jet.publish(subjects.OPEN_PART, part.model_dump_json().encode())).seq for part in _parts(now)
    ]
    head = _Head(position=now.position, parts=tuple(seqs))
    try:
        seq = await jet.append(subjects.OPEN_HEAD, head.model_dump_json().encode(), found.seq if found else 0)
    except Conflict:
        return  # another conductor's list is as good; the next head removes our parts
    # A crash here leaves old parts and heads; the next list removes them.
    for subject in (subjects.OPEN_HEAD, subjects.OPEN_PART):  # not the places of starts under way
        await jet.purge(subjects.OPEN, subject, min([*seqs, seq]) - 1)


@dataclass(slots=True)
class OpenSessionsWriter:
    """Writes the list while the log grows. Any number of conductors may run one."""

    jet: Jet
    now: Callable[[], OpenSessions]
    """The directory's list. It must be ready."""
    ready: Callable[[], Awaitable[None]]

    async def run(self) -> None:
        """Look every LOOK_S until cancelled."""
        await retry(self.ready)
        loop = asyncio.get_running_loop()
        written, written_s = 0, loop.time()
        while True:
            now = self.now()
            moved = now.position - written
            if moved >= EVERY_EVENTS or (moved and loop.time() - written_s >= EVERY_S):
                try:
                    await write_open(self.jet, now)
                    written, written_s = now.position, loop.time()
                except LucidError as error:
                    # The next start reads more of the log: no other effect.
                    log.warning("open_sessions_unwritten", error=error)
            await asyncio.sleep(LOOK_S)


def _read_head(raw: Bytes) -> _Head | None:
    try:
        return _Head.model_validate_json(bytes(raw))
    except ValidationError:
        return None


def _joined(head: _Head, parts: Sequence[Bytes]) -> OpenSessions | None:
    try:
        read = [_Part.model_validate_json(bytes(part)) for part in parts]
    except ValidationError:
        return None
    names = tuple(name for part in read for name in part.names)
    sealed = {name: at_us for part in read for name, at_us in part.sealed.items()}
    return OpenSessions(head.position, names, sealed)


def _parts(now: OpenSessions) -> list[_Part]:
    """The names in messages of at most PART_BYTES: a name with its time takes less than 150 bytes."""
    each = PART_BYTES // 150
    names, sealed = now.names, list(now.sealed.items())
    return [
        *(_Part(names=names[at : at + each]) for at in range(0, len(names), each)),
        *(_Part(sealed=dict(sealed[at : at + each])) for at in range(0, len(sealed), each)),
    ]
