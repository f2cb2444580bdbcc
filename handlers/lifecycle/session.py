"""Folds a session's log into a Session, event by event.

1. `evolve` never refuses: an event in the log has happened. rules.py says which events may happen.
2. An event of a kind that this version does not know changes only `events` and `last_seq`.
3. Pure: the same events give the same Session.
"""

from dataclasses import dataclass, field, replace
from typing import Any

from schemas.events.session import (
    DAY_US,
    Created,
    DestroyOrdered,
    DetailsChanged,
    EndRequested,
    Event,
    HoldChanged,
    LossAccepted,
    PipelinePaused,
    PipelineResumed,
    Recovered,
    RunAllotted,
    Sealed,
    SealStarted,
    SessionPolicy,
    Shredded,
    SourceReleased,
    StartCompleted,
    State,
    Transition,
)
from schemas.subjects import UPLOAD_HOST

NO_POLICY = SessionPolicy()
RECORDING = (State.STARTING, State.ACTIVE, State.PAUSING, State.PAUSED)


@dataclass(frozen=True, slots=True)
class Session:
    """One session, folded from its log. `state` is empty while there is no such session."""

    id: str
    state: str = ""
    created: Created | None = None
    dek_id: bytes = b""
    """16 bytes; empty until START_COMPLETE."""
    intake: bytes = b""
    """The intake public key, 1216 bytes; empty until START_COMPLETE."""
    key_id: bytes = b""
    """The data key that the log names first: with the details, or at START_COMPLETE. 16 bytes or empty."""
    revision: int = 0
    """Of `details`; 0: there are none yet."""
    details: bytes = b""
    """The newest personal fields, sealed (handlers/crypto/details.py)."""
    started_us: int = 0
    ended_us: int = 0
    """When the recording ended; 0: it runs, or never started."""
    run: int = 0
    """The newest run."""
    run_chunks: int = 0
    """`run` drives the chunks below this index; run 0 drives the others."""
    losses: dict[int, str] = field(default_factory=dict)
    """Lost chunks: index → reason."""
    released_chunks: int = 0
    """Number of first chunks that were read back from the store; none of them is made again."""
    released_to: int = 0
    """Stream sequence up to which fragments may be purged."""
    end_requested: EndRequested | None = None
    seal_started: SealStarted | None = None
    """The seal in progress; None: there is none, or it is complete."""
    data_chunks: int = 0
    """Of the newest seal, complete or not, lost ones included; 0: none has begun."""
    seals: tuple[Sealed, ...] = ()
    held: bool = False
    pipeline_paused: bool = False
    destroy: DestroyOrdered | None = None
    shredded: Shredded | None = None
    reason: str = "none"
    """Reason of the last transition."""
    moved_us: int = 0
    """Time of the last transition."""
    causes: frozenset[str] = frozenset()
    events: int = 0
    """Number of events; also the line number of the last one in the history."""
    first_seq: int = 0
    """Stream sequence of Created: sessions are numbered in this order."""
    last_seq: int = 0
    """Stream sequence of the last event, which an append expects; 0: none."""

    @property
    def uid(self) -> bytes:
        """16 bytes; empty while there is no such session."""
        return self.created.uid if self.created else b""

    @property
    def owner(self) -> str:
        """Label of the person that opened the session; empty: a host did."""
        created = self.created
        return created.who if created is not None and created.host == UPLOAD_HOST else ""

    @property
    def policy(self) -> SessionPolicy:
        """The rules of the session; without members if it has none."""
        return (self.created.policy if self.created else None) or NO_POLICY

    @property
    def upload(self) -> bool:
        """Whether the platform's own upload host writes the recording."""
        return self.created is not None and bool(self.created.upload)

    @property
    def duration_us(self) -> int:
        """From the start to the end of the recording; 0: it has not ended."""
        return max(self.ended_us - self.started_us, 0) if self.ended_us else 0

    @property
    def retained_until_us(self) -> int:
        """When the session is destroyed by itself; 0: no rule, or its period has not begun.

        A recording's period begins with its first seal. So an unsealed one waits for a person, in ERROR too.
        Without a data key nothing was recorded: then the creation counts.
        """
        if self.dek_id and not self.seals:
            return 0
        created_us = self.created.at_us if self.created else 0
        return self._end_of_period(self.seals[0].at_us if self.seals else created_us)

    @property
    def protected_until_us(self) -> int:
        """When a person may destroy the session, and not earlier; 0: at any time.

        An unsealed recording is protected from its start on. Both times are the conductor's, never a host's.
        """
        if not self.dek_id:
            return 0
        return self._end_of_period(self.seals[0].at_us if self.seals else self.started_us)

    def _end_of_period(self, since_us: int) -> int:
        days = self.policy.retention_days
        return since_us + days * DAY_US if days is not None else 0

    @property
    def sealed(self) -> bool:
        return bool(self.seals)

    @property
    def finished(self) -> bool:
        """Whether nothing is left to do until a person sends a command. Its source may still exist."""
        match self.state:
            case "":
                return True
            case State.DESTROYED:
                return self.shredded is not None
            case State.STOPPED | State.ERROR:
                return self.sealed and self.seal_started is None and self.destroy is None
        return False

    def is_settled(self, index: int) -> bool:
        """Whether this chunk is never made again; its source may be gone."""
        gone = self.sealed or self.state in (State.CLEANUP, State.DESTROYED)
        return gone or index in self.losses or index < self.released_chunks


def initial(session_id: str) -> Session:
    """Return a session without events."""
    return Session(session_id)


def evolve(session: Session, event: Event | None, seq: int) -> Session:
    """Return the session after `event` at stream sequence `seq`. event None: of an unknown kind.

    An event at or below `last_seq` changes nothing: a follower may deliver an event twice.
    """
    if seq <= session.last_seq:
        return session
    first_seq = seq if isinstance(event, Created) else session.first_seq
    changes: dict[str, Any] = {"last_seq": seq, "events": session.events + 1, "first_seq": first_seq}
    return replace(session, **changes | _changes(session, event))


def _changes(session: Session, event: Event | None) -> dict[str, Any]:
    """The fields that an event changes: one new object an event, for a copy costs more than the rest."""
    if event is None:
        return {}
    changes: dict[str, Any] = {"causes": session.causes | {event.cause}}
    if isinstance(event, Transition):
        changes |= {"state": event.to_state, "reason": event.reason, "moved_us": event.at_us}
        changes["ended_us"] = _ended_us(session, event)
    return changes | _own_changes(session, event)


def _own_changes(session: Session, event: Event) -> dict[str, Any]:
    """The fields that only an event of its kind changes."""
    match event:
        case Created():
            return {
                "state": State.CREATED,
                "created": event,
                "key_id": event.dek_id or b"",
                "revision": 1 if event.details else 0,
                "details": event.details or b"",
                "moved_us": event.at_us,
            }
        case StartCompleted():
            key_id = event.dek_id
            return {"dek_id": key_id, "key_id": key_id, "intake": event.intake, "started_us": event.at_us}
        case DetailsChanged():
            return {"revision": event.revision, "details": event.details, "key_id": event.dek_id}
        case PipelinePaused() | PipelineResumed():
            return {"pipeline_paused": isinstance(event, PipelinePaused)}
        case Recovered() | RunAllotted():
            return {"run": event.run, "run_chunks": event.chunks}
        case LossAccepted():
            return {"losses": {**session.losses, event.index: event.reason}}
        case SourceReleased():
            return {"released_chunks": event.chunks, "released_to": event.up_to}
        case EndRequested():
            return {"end_requested": session.end_requested or event}
        case SealStarted():
            return {"seal_started": event, "data_chunks": event.n}
        case Sealed():
            return {"seal_started": None, "seals": (*session.seals, event)}
        case HoldChanged():
            return {"held": event.held}
        case DestroyOrdered():
            return {"destroy": event}
        case Shredded():
            return {"shredded": event}
    return {}


def _ended_us(session: Session, event: Transition) -> int:
    """When the recording ended, after a transition: a session that recovers goes on."""
    if event.to_state in RECORDING or not session.started_us:
        return 0
    return session.ended_us or event.at_us
