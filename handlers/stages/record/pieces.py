"""Owns what goes into record's fold beside fragments, and what comes out of it."""

from collections.abc import Iterable
from dataclasses import dataclass

from schemas.events.chunk import Ended, Recorded
from schemas.events.session import Created, SessionSettings
from schemas.format.fragment import EVENTS, MAIN, Fragment, Header, Kind, genesis
from schemas.format.index import FragmentRow


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
class FoldedFragment:
    """A fragment as the fold sees it: everything but the sealed bytes of a data fragment."""

    stream_seq: int
    header: Header
    raw_header: bytes
    head: bytes
    row: FragmentRow
    whole: bytes = b""
    """The whole fragment, of kinds part, final and end."""

    @classmethod
    def of(cls, stream_seq: int, fragment: Fragment) -> "FoldedFragment":
        """What the fold keeps of a fragment; `fragment` and its body are not kept alive."""
        keeps = fragment.header.kind in (Kind.PART, Kind.FINAL, Kind.END)
        whole = fragment.whole if keeps else b""
        return cls(
            stream_seq, fragment.header, fragment.raw_header, fragment.head, FragmentRow.of(fragment), whole
        )

    @property
    def proof(self) -> bytes:
        """header ‖ H(body) ‖ signature, 192 bytes: what shows an equivocation."""
        return self.raw_header + self.row.body_digest + self.row.signature


@dataclass(frozen=True, slots=True)
class Refused:
    """A fragment that changed nothing, and why."""

    fragment: FoldedFragment
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Duplicate:
    """A copy of a fragment that was taken, or another for its place (then it was noted as equivocation)."""

    fragment: FoldedFragment


@dataclass(frozen=True, slots=True)
class LateDuplicate:
    """A fragment for a place taken long ago: only the recorded events can tell a double from another."""

    fragment: FoldedFragment


Output = Recorded | Ended | Refused | Duplicate | LateDuplicate


def is_taken(outputs: Iterable[Output], stream_seq: int) -> bool:
    """Whether the fragment at this place of the stream was taken: new, and neither a double nor refused."""
    return not any(
        isinstance(output, Refused | Duplicate | LateDuplicate) and output.fragment.stream_seq == stream_seq
        for output in outputs
    )
