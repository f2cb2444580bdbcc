"""The one door to recorded fragments: knows which stream holds a session, and reads, counts and purges there.

1. A session's fragments are in one stream, that of its shard (schemas/subjects.py). A stream sequence means
   something only together with its session.
2. The number of shards is read from the metadata of RECORDINGS, never from a setting: the first start has
   frozen it there (topology.py). An installation without that entry has one shard.
3. Every publisher can make up names of up to 4 KiB. The server cuts off a client to which it owes more than
   64 MiB. So many names are never asked for at once; one name is one small question.
"""

from collections import defaultdict
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass

from handlers.lifecycle.session import Session
from schemas import subjects
from schemas.errors import Misuse, Rejected
from schemas.format.fragment import parse
from schemas.ports import Jet, MergedFollower
from schemas.ports.messages import Message, StreamInfo

MOST_NAMES = 10_000
"""Of all shards together: at 4 KiB each, far below the 64 MiB that the server may owe."""


@dataclass(frozen=True, slots=True)
class Recordings:
    """The fragments of all sessions. `subject`: of one session, of one host or of any (`*`)."""

    jet: Jet
    shards: int

    @classmethod
    async def open(cls, jet: Jet) -> "Recordings":
        """Raises NotFound (stream.absent): the streams are not declared yet. Misuse (shards.unknown)."""
        return cls(jet, shards_of(await jet.info(subjects.RECORDINGS)))

    @property
    def streams(self) -> tuple[str, ...]:
        """Every stream, by shard."""
        return subjects.recording_streams(self.shards)

    def stream_of(self, session: str) -> str:
        """The stream of a session's shard."""
        return subjects.recording_stream(subjects.partition(session), self.shards)

    # one session

    async def last(self, subject: str) -> Message | None:
        return await self.jet.last(self._holding(subject), subject)

    async def batch(self, subject: str, from_seq: int, max_bytes: int) -> tuple[list[Message], bool]:
        return await self.jet.batch(self._holding(subject), subject, from_seq, max_bytes=max_bytes)

    def read_all(self, subject: str, from_seq: int = 1) -> AsyncIterator[Message]:
        return self.jet.read_all(self._holding(subject), subject, from_seq)

    async def get_many(self, session: str, seqs: Sequence[int]) -> dict[int, Message]:
        return await self.jet.get_many(self.stream_of(session), seqs)

    async def purge(self, subject: str, up_to_seq: int | None = None) -> int:
        return await self.jet.purge(self._holding(subject), subject, up_to_seq)

    async def delete(self, session: str, seq: int) -> bool:
        return await self.jet.delete(self.stream_of(session), seq)

    async def counts(self, session: str) -> dict[str, int]:
        """The number of messages under a session's name, by subject: of every host."""
        return await self.jet.subject_counts(self.stream_of(session), subjects.recording_by_anyone(session))

    async def is_recorded(self, session: str) -> bool:
        """Whether the session has messages, of any host."""
        return bool(await self.counts(session))

    async def sent(self, session: Session) -> int:
        """The fragments of the main track up to the last one in the stream; 0 after the seal."""
        created = session.created
        if session.sealed or created is None:
            return 0
        last = await self.last(subjects.recording(created.host, session.id))
        if last is None:
            return 0
        try:
            return parse(last.data).header.seq + 1
        except Rejected:  # of a stranger, under this name
            return 0

    # one shard

    async def info(self, stream: str) -> StreamInfo:
        return await self.jet.info(stream)

    async def names(self, stream: str) -> set[str] | None:
        """Every name with messages in one stream; None: there are more than MOST_NAMES."""
        count = (await self.jet.info(stream)).subjects
        if count > MOST_NAMES:
            return None
        if not count:
            return set()
        counts = await self.jet.subject_counts(stream, subjects.ALL_RECORDINGS)
        return {subjects.session_of(subject) for subject in counts}

    # all shards

    async def infos(self) -> list[StreamInfo]:
        """The state of every stream, by shard."""
        return [await self.jet.info(stream) for stream in self.streams]

    def held_by(self, partitions: Collection[int]) -> dict[str, list[int]]:
        """The streams that hold some of these partitions, with those."""
        held: defaultdict[str, list[int]] = defaultdict(list)
        for p in sorted(partitions):
            held[subjects.recording_stream(p, self.shards)].append(p)
        return dict(held)

    def follow(self, partitions: Collection[int], after: Mapping[str, int]) -> MergedFollower:
        """Follow partitions in all their streams. after: by stream, the sequence before the first one."""
        sources = (
            (stream, [subjects.recording_filter(p) for p in held], after[stream] + 1)
            for stream, held in self.held_by(partitions).items()
        )
        return self.jet.follow_all(sources, len(partitions) / subjects.PARTITIONS)

    def _holding(self, subject: str) -> str:
        return self.stream_of(subjects.session_of(subject))


def shards_of(info: StreamInfo) -> int:
    """The number of shards in the metadata of RECORDINGS. Raises Misuse (shards.unknown)."""
    text = info.metadata.get(subjects.SHARDS_KEY, "1")
    counts = {str(shards): shards for shards in subjects.SHARD_COUNTS}
    if text not in counts:
        allowed = ", ".join(counts)
        raise Misuse(
            f"stream {info.name} has {text[:20]!r} as number of shards in its metadata; allowed: {allowed}",
            code="shards.unknown",
            hint="use the newer version of this program that made it, or another NATS server",
        )
    return counts[text]
