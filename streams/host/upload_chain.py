"""Reads the chain of one upload back from the stream: how far it came, and a sealer that goes on from there.

1. It begins at the last checkpoint of the stage `record`; the fragments after it follow one by one.
2. Messages that our key did not sign count for nothing, except as the last message of the subject.
"""

from dataclasses import dataclass, replace
from typing import Self

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from handlers.format.fragment import FragmentSealer, SealerState, verify_fragment
from handlers.lifecycle.session import Session
from schemas import subjects
from schemas.errors import Rejected, Unavailable
from schemas.events.chunk import Ended, Recorded
from schemas.events.session import Created
from schemas.format.fragment import MAIN, Fragment, Kind, genesis, parse
from schemas.ports import Credential, Identities, Jet, no_token
from schemas.subjects import UPLOAD_HOST
from streams.event_store.chunk_log import last_recorded
from streams.event_store.recordings import Recordings
from streams.host.session_start import locked_identity


@dataclass(slots=True)
class Chain:
    """One session's chain as the stream holds it. last_seq: stream sequence of its last message; 0: none."""

    session: Session
    sealer: FragmentSealer
    last_seq: int
    has_key: bool = False
    """The sealer has begun a part of its own."""
    ended: bool = False
    time_us: int = 0
    """Host time of the last fragment: it never runs backwards."""
    traceparent: str = ""
    """Of the last fragment that has one, as the stream holds it; empty: none has."""

    @property
    def offset(self) -> int:
        """Plain bytes so far."""
        return self.sealer.state.plain

    @property
    def created(self) -> Created:
        return created(self.session)

    @property
    def subject(self) -> str:
        return subjects.recording(UPLOAD_HOST, self.session.id)


@dataclass(slots=True)
class _Folded:
    """The chain while it is read."""

    state: SealerState
    position: int = 1
    """Stream sequence from which on fragments may be outside closed chunks."""
    ended: bool = False
    open_seqs: frozenset[int] = frozenset()
    time_us: int = 0

    @classmethod
    def after(cls, event: Recorded | Ended) -> Self:
        """The chain up to a checkpoint; bytes of its open chunk are not counted yet."""
        track = next(track for track in event.state.tracks if track.id == MAIN)
        state = SealerState(track.next_seq, track.head, track.part, track.offset)
        ended = isinstance(event, Ended) or bool(event.state.ending)
        return cls(state, event.state.resume, ended, frozenset(track.open))

    def add(self, seq: int, fragment: Fragment) -> None:
        """Fold one fragment of ours at a stream sequence."""
        state, header = self.state, fragment.header
        self.ended = self.ended or header.kind is Kind.FINAL
        if seq in self.open_seqs:
            self.state = replace(state, plain=state.plain + fragment.plain)
        elif header.seq == state.next_seq:
            part = header.part if header.kind is Kind.PART else state.part
            self.state = SealerState(header.seq + 1, fragment.head, part, state.plain + fragment.plain)
        self.time_us = max(self.time_us, header.time_us)


class ChainReader:
    """Reads chains; holds the upload host's key once it was read."""

    def __init__(self, jet: Jet, recordings: Recordings, identities: Identities) -> None:
        self._jet, self._recordings, self._identities = jet, recordings, identities
        self._key: Ed25519PrivateKey | None = None
        self.credential: Credential = no_token
        """Of the upload host, once its key was read; until then it makes no token."""

    async def stands(self, chain: Chain) -> bool:
        """Whether the stream holds this chain and no more: its last message is the last one, or purged."""
        newest = await self._recordings.last(chain.subject)
        return newest is None or newest.seq == chain.last_seq

    async def read(self, session: Session) -> Chain:
        """The chain of a started session of the upload host. Raises Unavailable (upload.key)."""
        made = created(session)
        first = genesis(session.uid, MAIN, made.host_key, made.counter, made.prev_genesis, session.intake)
        last = await last_recorded(self._jet, session.id)
        folded = _Folded.after(last.event) if last else _Folded(SealerState(0, first, -1, 0))
        subject, last_seq, traceparent = subjects.recording(UPLOAD_HOST, session.id), 0, ""
        async for message in self._recordings.read_all(subject, folded.position):
            last_seq = message.seq
            fragment = _ours(bytes(message.data), made)
            if fragment is not None:
                folded.add(message.seq, fragment)
                traceparent = message.headers.get("traceparent", traceparent)
        if not last_seq and (newest := await self._recordings.last(subject)) is not None:
            last_seq = newest.seq  # it is inside a closed chunk
            traceparent = newest.headers.get("traceparent", "")
        key = await self._signing_key(made.host_key)
        sealer = FragmentSealer(session.uid, MAIN, key, session.intake, first, folded.state)
        return Chain(
            session,
            sealer,
            last_seq,
            ended=folded.ended,
            time_us=folded.time_us,
            traceparent=traceparent,
        )

    async def _signing_key(self, wanted: bytes) -> Ed25519PrivateKey:
        if self._key is None:
            with await locked_identity(self._identities, UPLOAD_HOST) as identity:
                self._key, self.credential = identity.key, identity.credential
        if self._key.public_key().public_bytes_raw() != wanted:
            raise Unavailable(
                "the key of this session's uploads is not here",
                code="upload.key",
                hint="send the bytes to the machine where the session was opened",
            )
        return self._key


def created(session: Session) -> Created:
    """The first event of a session that is there."""
    assert session.created is not None
    return session.created


def _ours(raw: bytes, made: Created) -> Fragment | None:
    """The fragment if the upload host signed it for this session."""
    try:
        fragment = parse(raw)
    except Rejected:
        return None
    ours = fragment.header.uid == made.uid and fragment.header.track == MAIN
    return fragment if ours and verify_fragment(made.host_key, fragment) else None
