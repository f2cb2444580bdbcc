"""Side effects that fail: before they are applied, or after. Wrappers for the connection and the store.

1. Every write of a role goes through `Faults`, under a name that says what it is: `append recorded`,
   `ack store`, `put manifests`. Reads of the store are named too, for a disk may fail there.
2. A fault belongs to one session and strikes once. Afterwards the role goes on, or is dead to that session:
   whatever it tries for it fails, so that another process must finish what it began.
"""

import asyncio
import logging
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from infra.blobs.disk import DiskBlobs
from infra.disk.data_dir import DataDir
from infra.disk.overflow import DiskOverflow
from infra.jetstream import Jet, Message, PullConsumer
from infra.keys.folder import KeyFolder as DiskKeyFolder
from infra.keys.master import Keyring
from infra.keys.session_keys import DiskKeyFiles
from infra.keys.signers import Signers
from schemas import subjects
from schemas.errors import Unavailable
from schemas.events.host import CounterTaken, read_host_event
from schemas.format.digest import Content
from schemas.ports import Erasure
from streams.conductor import conductor
from streams.conductor.conductor import Conductor
from streams.event_store.event_store import EventStore
from streams.event_store.recordings import Recordings
from streams.event_store.session_directory import SessionDirectory
from streams.evidence.evidence_store import EvidenceStore
from streams.keys.folder import LoggedKeyFolder, RequireKeys
from streams.keys.keystore import KeyStore
from streams.pipeline import worker
from streams.pipeline.runner import Limits
from streams.pipeline.stages import STAGES

log = logging.getLogger("lucid.test.faults")

CALM = "calm"
LIMITS = {stage.verb: Limits(4, 16, 30, 5, 64 << 20) for stage in STAGES}
Form = Literal["failed", "applied"]
FORMS: tuple[Form, ...] = ("failed", "applied")


class Row(NamedTuple):
    """Which effect of a session is struck: its name, which one of that name, and how."""

    effect: str
    number: int
    form: Form
    dies: bool
    """Afterwards the role is dead to this session."""

    @property
    def session(self) -> str:
        after = "dies" if self.dies else "goes-on"
        return f"{self.effect.replace(' ', '-')}-{self.number}-{self.form}-{after}"


def rows(effects: Mapping[str, int], dies: Iterable[bool]) -> list[Row]:
    """A row for every effect, in both forms."""
    modes = tuple(dies)
    return [
        Row(effect, number, form, mode)
        for effect, count in effects.items()
        for number in range(count)
        for form in FORMS
        for mode in modes
    ]


@dataclass
class Faults:
    """What is to be struck, what was, and what every session has done so far."""

    rows: dict[str, Row]
    uids: dict[str, str] = field(default_factory=dict)
    """uid in hex → session."""
    done: defaultdict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    struck: set[str] = field(default_factory=set)

    async def around(self, session: str, effect: str, call: Callable[[], Awaitable[Any]]) -> Any:
        fails_after = self._before(session, effect)
        try:
            result = await call()
        except BaseException as error:
            self._undone(session, effect, error)
            raise
        return self._after(session, effect, result) if fails_after else result

    def around_now(self, session: str, effect: str, call: Callable[[], Any]) -> Any:
        fails_after = self._before(session, effect)
        try:
            result = call()
        except BaseException as error:
            self._undone(session, effect, error)
            raise
        return self._after(session, effect, result) if fails_after else result

    def is_dead(self, session: str) -> bool:
        return session in self.struck and self.rows[session].dies

    def session(self, subject_or_name: str) -> str:
        """The session that a subject or a blob's name belongs to; empty: of no session here."""
        for part in subject_or_name.replace("/", ".").split("."):
            named = self.uids.get(part, part)
            if named in self.rows or named == CALM:
                return named
        return ""

    async def all_struck(self, patience_s: float = 60) -> None:
        end_s = asyncio.get_running_loop().time() + patience_s
        while self.struck != self.rows.keys():
            assert asyncio.get_running_loop().time() < end_s, sorted(self.rows.keys() - self.struck)
            await asyncio.sleep(0.02)

    def _before(self, session: str, effect: str) -> bool:
        """Whether it is to fail after it was applied; raises when it fails now."""
        if not session:
            return False
        if self.is_dead(session):
            raise Unavailable(f"{session}: dead", code="test.dead")
        number = self.done[session][effect]
        self.done[session][effect] += 1
        row = self.rows.get(session)
        if row is None or (row.effect, row.number) != (effect, number):
            return False
        if row.form == "failed":
            self.struck.add(session)
            raise Unavailable(f"{session}: failed", code="test.failed")
        return True

    def _undone(self, session: str, effect: str, error: BaseException) -> None:
        """It failed by itself: the next try is the one that counts."""
        log.warning("failed_by_itself session=%s effect=%s error=%r", session, effect, error)
        if session:
            self.done[session][effect] -= 1

    def _after(self, session: str, effect: str, result: object) -> Any:
        self.struck.add(session)
        raise Unavailable(f"{session}: {effect} gave {result!r:.40}, unheard", code="test.applied")


class FaultyJet:
    """A connection whose writes and acks can be struck."""

    def __init__(self, jet: Jet, faults: Faults) -> None:
        self._jet, self._faults = jet, faults

    def __getattr__(self, name: str) -> Any:
        return getattr(self._jet, name)

    async def append(self, subject: str, data: bytes, *args: Any, **more: Any) -> int:
        call = lambda: self._jet.append(subject, data, *args, **more)  # noqa: E731
        if not subject.startswith(("lucid.hosts.", "lucid.counters.")):
            return int(await self._around("append", subject, call))
        said = read_host_event(data)
        session = said.session if isinstance(said, CounterTaken) else ""
        return int(await self._faults.around(self._faults.session(session), "append hosts", call))

    async def publish(self, subject: str, *args: Any, **more: Any) -> Any:
        return await self._around("publish", subject, lambda: self._jet.publish(subject, *args, **more))

    async def purge(self, stream: str, subject: str, *args: Any) -> int:
        purge = lambda: self._jet.purge(stream, subject, *args)  # noqa: E731
        effect = f"purge {stream.split('-')[0]}"  # of whichever shard
        return int(await self._faults.around(self._faults.session(subject), effect, purge))

    def pull(self, stream: str, consumer: str, *args: Any, **more: Any) -> "FaultyReader":
        return FaultyReader(self._jet.pull(stream, consumer, *args, **more), consumer, self._faults)

    async def _around(self, verb: str, subject: str, call: Callable[[], Awaitable[Any]]) -> Any:
        step = subjects.step_of(subject) if ".chunk." in subject else subject.split(".")[1]
        return await self._faults.around(self._faults.session(subject), f"{verb} {step}", call)


class FaultyReader:
    """A durable consumer whose acks can be struck. A dead process naks nothing: its messages come again."""

    def __init__(self, reader: PullConsumer, consumer: str, faults: Faults) -> None:
        self._reader, self._faults = reader, faults
        self._stage = consumer.split("-")[0]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reader, name)

    async def ack(self, message: Message) -> None:
        await self._around_ack(message, lambda: self._reader.ack(message))

    async def ack_sync(self, message: Message, *args: Any) -> None:
        await self._around_ack(message, lambda: self._reader.ack_sync(message, *args))

    async def _around_ack(self, message: Message, ack: Callable[[], Awaitable[Any]]) -> None:
        await self._faults.around(self._faults.session(message.subject), f"ack {self._stage}", ack)

    async def nak(self, message: Message, delay_s: float = 0) -> None:
        if not self._faults.is_dead(self._faults.session(message.subject)):
            await self._reader.nak(message, delay_s)


class FaultyBlobs(DiskBlobs):
    """A store whose writes and reads can be struck."""

    faults: Faults

    def put(self, name: str, data: Any) -> Any:
        return self._around("put", name, lambda: DiskBlobs.put(self, name, data))

    def read(self, name: str) -> bytes | None:
        found: bytes | None = self._around("read", name, lambda: DiskBlobs.read(self, name))
        return found

    def content(self, name: str) -> Content | None:
        found: Content | None = self._around("read", name, lambda: DiskBlobs.content(self, name))
        return found

    def quarantine(self, name: str) -> str | None:
        kept: str | None = self._around("quarantine", name, lambda: DiskBlobs.quarantine(self, name))
        return kept

    def remove(self, prefix: str) -> int:
        return int(self._around("remove", prefix, lambda: DiskBlobs.remove(self, prefix)))

    def _around(self, verb: str, name: str, call: Callable[[], Any]) -> Any:
        return self.faults.around_now(self.faults.session(name), f"{verb} {self.root.name}", call)


class FaultyKeyFiles(DiskKeyFiles):
    """Key files whose making and erasing can be struck."""

    faults: Faults

    def make(self, uid: bytes, data: bytes) -> bytes:
        made: bytes = self._around("make key", uid, lambda: DiskKeyFiles.make(self, uid, data))
        return made

    def erase(self, uid: bytes, *, was_made: bool = True) -> Erasure:
        outcome: Erasure = self._around(
            "erase key", uid, lambda: DiskKeyFiles.erase(self, uid, was_made=was_made)
        )
        return outcome

    def _around(self, effect: str, uid: bytes, call: Callable[[], Any]) -> Any:
        return self.faults.around_now(self.faults.session(uid.hex()), effect, call)


def key_store(data: DataDir, faults: Faults | None = None) -> KeyStore:
    """The key store of an installation; faults: what strikes it."""
    if faults is None:
        return KeyStore(DiskKeyFiles(data.keys / "sessions"), Keyring(data.keys))
    files = FaultyKeyFiles(data.keys / "sessions")
    files.faults = faults
    return KeyStore(files, Keyring(data.keys))


@asynccontextmanager
async def struck_worker(jet: Jet, data: DataDir, faults: Faults) -> AsyncIterator[None]:
    """A worker whose effects can be struck."""
    faulty: Any = FaultyJet(jet, faults)
    store = EventStore.over(await Recordings.open(faulty), SessionDirectory(jet))
    blobs = FaultyBlobs(data.chunks, data.quarantine)
    blobs.faults = faults
    overflow, signers = DiskOverflow(data.temp, 0), Signers(data.keys)
    parts = worker.WorkerParts(store, key_store(data), blobs, overflow, signers.public_keys, LIMITS)
    stop = asyncio.Event()
    tasks = [asyncio.create_task(store.directory.run())]
    working = asyncio.create_task(worker.work(parts, stop))
    try:
        yield
    finally:
        stop.set()
        await working
        await ended(tasks)


def checked(jet: Jet, data: DataDir) -> RequireKeys:
    """What a conductor asks before it makes or erases a key."""
    folder, files = DiskKeyFolder(data.keys), DiskKeyFiles(data.keys / "sessions")
    return LoggedKeyFolder(jet, folder, Keyring(data.keys), Signers(data.keys), files).require


@asynccontextmanager
async def struck_conductor(jet: Jet, data: DataDir, faults: Faults) -> AsyncIterator[SessionDirectory]:
    """A conductor whose effects can be struck, and the directory that it works with."""
    faulty: Any = FaultyJet(jet, faults)
    Keyring(data.keys).begin()
    Signers(data.keys).begin()
    directory, keys = SessionDirectory(jet), key_store(data, faults)
    chunks = FaultyBlobs(data.chunks, data.quarantine)
    manifests = FaultyBlobs(data.manifests, data.quarantine)
    chunks.faults = manifests.faults = faults
    quarantine, signers = DiskBlobs(data.quarantine), Signers(data.keys)
    store = EventStore.over(await Recordings.open(faulty), directory)
    parts = conductor.ConductorParts(
        *(store, keys, EvidenceStore(chunks, manifests, quarantine), signers),
        require_keys=checked(jet, data),
    )
    tasks = [asyncio.create_task(service.run()) for service in (directory, Conductor(parts))]
    try:
        await directory.ready()
        yield directory
    finally:
        await ended(tasks)


async def ended(tasks: list["asyncio.Task[None]"]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
