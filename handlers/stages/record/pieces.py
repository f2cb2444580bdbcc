"""Owns what goes into record's fold beside fragments, and what comes out of it."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from handlers.stages.record.open_chunk import FoldedFragment
from schemas.events.chunk import Ended, Recorded
from schemas.events.session import Created, SessionSettings
from schemas.format.fragment import EVENTS, MAIN, genesis


@dataclass(frozen=True, slots=True)
class Identity:
    """What the fold must know of its session before the first fragment."""

    session: str
    uid: bytes
    host: str
    settings: SessionSettings
    genesis: tuple[bytes, ...]
    """By track id."""

    @classmethod
    def of(cls, created: Created, intake_public: bytes) -> "Identity":
        """Of a session that has its key. intake_public: 1216 bytes."""
        who = created.host_key, created.counter, created.prev_genesis, intake_public
        return cls(
            session=created.session,
            uid=created.uid,
            host=created.host,
            settings=created.settings,
            genesis=tuple(genesis(created.uid, track, *who) for track in (MAIN, EVENTS)),
        )


@dataclass(frozen=True, slots=True)
class Refused:
    """A fragment that changed nothing, and why."""

    piece: FoldedFragment
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Double:
    """A copy of a fragment that was taken, or another for its place (then it was noted as equivocation)."""

    piece: FoldedFragment


@dataclass(frozen=True, slots=True)
class LateDuplicate:
    """A fragment for a place taken long ago: only the recorded events can tell a double from another."""

    piece: FoldedFragment


Ending = Literal["final", "aborted", "host_lost"]
Output = Recorded | Ended | Refused | Double | LateDuplicate


def is_taken(outputs: Iterable[Output], stream_seq: int) -> bool:
    """Whether the fragment at this place of the stream was taken: new, and neither a double nor refused."""
    return not any(
        isinstance(output, Refused | Double | LateDuplicate) and output.piece.stream_seq == stream_seq
        for output in outputs
    )
