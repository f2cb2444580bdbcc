"""The input and output types of the fold: identity, folded fragment, and the outcomes of one fragment."""

from collections.abc import Iterable
from dataclasses import dataclass

from schemas.events.chunk import Ended, Recorded
from schemas.events.session import Created, SessionSettings
from schemas.format.fragment import EVENTS, MAIN, Fragment, Header, Kind, genesis
from schemas.format.index import FragmentRow


@dataclass(frozen=True, slots=True)
class Identity:
    """The session of a fold, known before the first fragment."""

    session: str
    uid: bytes
    host: str
    settings: SessionSettings
    genesis: tuple[bytes, ...]
    """By track id."""

    @classmethod
    def of(cls, created: Created, intake_public: bytes) -> "Identity":
        """Return the identity of a session that has its key. intake_public: 1216 bytes."""
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
    """A fragment without the sealed bytes of DATA, as the fold keeps it."""

    stream_seq: int
    header: Header
    raw_header: bytes
    head: bytes
    row: FragmentRow
    whole: bytes = b""
    """The whole fragment of kind PART, FINAL or END; else empty."""

    @classmethod
    def of(cls, stream_seq: int, fragment: Fragment) -> "FoldedFragment":
        """Return the parts of a fragment that the fold keeps. Neither `fragment` nor its body stays alive."""
        keeps = fragment.header.kind in (Kind.PART, Kind.FINAL, Kind.END)
        whole = fragment.whole if keeps else b""
        return cls(
            stream_seq, fragment.header, fragment.raw_header, fragment.head, FragmentRow.of(fragment), whole
        )

    @property
    def proof(self) -> bytes:
        """header ‖ H(body) ‖ signature, 192 bytes: the proof of an equivocation."""
        return self.raw_header + self.row.body_digest + self.row.signature


@dataclass(frozen=True, slots=True)
class Refused:
    """A refused fragment. It changed nothing."""

    fragment: FoldedFragment
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Duplicate:
    """A copy of an accepted fragment, or another one for its place: the fold noted an equivocation."""

    fragment: FoldedFragment


@dataclass(frozen=True, slots=True)
class LateDuplicate:
    """A fragment for a place filled long ago: only `recorded` events tell a copy from an equivocation."""

    fragment: FoldedFragment


Output = Recorded | Ended | Refused | Duplicate | LateDuplicate


def is_taken(outputs: Iterable[Output], stream_seq: int) -> bool:
    """Whether the fragment at `stream_seq` was accepted: neither refused nor a duplicate."""
    return not any(
        isinstance(output, Refused | Duplicate | LateDuplicate) and output.fragment.stream_seq == stream_seq
        for output in outputs
    )


def closes(outputs: Iterable[Output]) -> bool:
    """Whether a chunk was closed."""
    return any(isinstance(output, Recorded) for output in outputs)
