"""Makes the read model's document of a session from the fold of its log. Pure.

1. The same events give the same document, in whichever order and however often they come.
2. Sealed fields and tokens leave the document with the order to destroy, before the key is erased.
"""

from handlers.lifecycle.session import Session
from handlers.lifecycle.view import summary
from schemas.events.session import State
from schemas.ports.read_models import SessionDocument

VERSION = 2
"""Of the meaning of a document's fields. Documents of another version are made anew."""


def document(session: Session, tokens: tuple[bytes, ...] = ()) -> SessionDocument:
    """Return the document of a session that was created. tokens: of its details, if they can be read."""
    created = session.created
    assert created is not None
    newest = session.seals[-1] if session.seals else None
    return SessionDocument(
        number=session.first_seq,
        seq=session.last_seq,
        session=session.id,
        state=session.state,
        host=created.host,
        opened_by=session.owner,
        reason=session.reason,
        created_us=created.at_us,
        started_us=session.started_us,
        moved_us=session.moved_us,
        duration_us=session.duration_us,
        sealed=newest is not None,
        held=session.held,
        chunks=newest.chunks if newest else 0,
        plain_bytes=newest.plain if newest else 0,
        sealed_bytes=newest.sealed if newest else 0,
        revision=session.revision,
        details=b"" if is_going(session) else session.details,
        tokens=() if is_going(session) else tokens,
        shown=summary(session),
    )


def is_going(session: Session) -> bool:
    """Whether the session is destroyed, or was ordered to be."""
    return session.destroy is not None or session.state in (State.CLEANUP, State.DESTROYED)


def sealed_details(session: Session) -> tuple[bytes, int, bytes]:
    """Return uid, revision and blob of the fields that a document may hold; an empty blob: it holds none."""
    return session.uid, session.revision, b"" if is_going(session) else session.details
