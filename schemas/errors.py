"""The errors that this system raises on purpose, and the meaning of each kind for the caller.

    LucidError
      Retryable            the same call may succeed later. A stage naks with delay.
        Unavailable        a server or file system does not answer
        NoSpace            a disk or stream is full
        Conflict           another writer was first; read again and decide again
        Busy               a limit of work or requests is reached; ask again later
      Rejected             the same call will never succeed. A stage writes a dead letter.
        Misuse             usage or configuration is wrong
          Misuses          several settings are wrong at once
        EvidenceFalse      bytes differ from the signed or sealed ones
        NotFound           no such session, chunk, file
        Unreadable         a file is there and cannot be read
        RefusedByState     the state machine does not allow it (also a ValueError)
        Stale              the caller decided on an older version of the thing
        Unconditional      the request does not say on which version the caller decided
        TooLarge           a body is larger than allowed
        Denied             not allowed, or the wrong key
          Unauthenticated  there is no token, or none that counts

1. `code` is stable (`area.word`) and machine-readable; the sentence may be reworded, the code may not.
2. The sentence names the thing, its state and the allowed states; `hint` holds a command that helps.
3. `OUTCOMES` is the only table from kind to exit code and HTTP status; a test proves that it is total.
"""

import errno
from collections.abc import Iterable
from typing import NamedTuple


class LucidError(Exception):
    """An expected failure. `code`: stable, `area.word`; `hint`: the next step; `place`: file or field."""

    def __init__(self, message: str, *, code: str, hint: str = "", place: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.hint = hint
        self.place = place

    def __str__(self) -> str:
        return f"{self.message} [{self.code}]"


class Retryable(LucidError):
    """The same call may succeed later."""


class Unavailable(Retryable):
    """A server, file system or peer does not answer now."""


class NoSpace(Retryable):
    """A disk or a stream is full."""


class Conflict(Retryable):
    """Another writer was first; read again, decide again."""


class Busy(Retryable):
    """A limit of work or requests is reached; ask again later."""


class Rejected(LucidError):
    """The same call will never succeed."""


class Misuse(Rejected):
    """Usage or configuration is wrong."""


class Misuses(Misuse):
    """Several settings are wrong at once; `each` has them."""

    def __init__(self, message: str, *, each: tuple[Misuse, ...] = (), **more: str) -> None:
        super().__init__(message, **more)
        self.each = each


class EvidenceFalse(Rejected):
    """Bytes differ from the signed or sealed ones."""


class NotFound(Rejected):
    """There is no such session, chunk or file."""


class Unreadable(Rejected):
    """The file exists and cannot be read: its content is unknown."""


class RefusedByState(Rejected, ValueError):
    """The session's state does not allow this command now."""


class Stale(Rejected):
    """The caller decided on an older version of the thing: read it again."""


class Unconditional(Rejected):
    """The request does not say on which version of the thing the caller decided."""


class TooLarge(Rejected):
    """A body is larger than allowed."""


class Denied(Rejected):
    """The caller may not do this, or the key does not fit."""


class Unauthenticated(Denied):
    """The caller is unknown: there is no token, or none that counts."""


class Outcome(NamedTuple):
    """The meaning of an error outside this process: exit code and HTTP status."""

    exit_code: int
    http_status: int


FULL_ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""`errno` of an OSError that becomes NoSpace."""

EXIT_OK, EXIT_BUG, EXIT_SIGNER_UNKNOWN, EXIT_INTERRUPTED = 0, 1, 9, 130

OUTCOMES: dict[type[LucidError], Outcome] = {
    Misuse: Outcome(2, 400),
    Misuses: Outcome(2, 400),
    EvidenceFalse: Outcome(3, 422),
    NotFound: Outcome(4, 404),
    Unreadable: Outcome(4, 403),
    RefusedByState: Outcome(5, 409),
    Conflict: Outcome(5, 409),
    Stale: Outcome(5, 412),
    Unconditional: Outcome(5, 428),
    TooLarge: Outcome(2, 413),
    Denied: Outcome(6, 403),
    Unauthenticated: Outcome(6, 401),
    Rejected: Outcome(2, 400),
    Unavailable: Outcome(7, 503),
    NoSpace: Outcome(8, 507),
    Busy: Outcome(7, 429),
    Retryable: Outcome(7, 503),
    LucidError: Outcome(1, 500),
}


def outcome(error: LucidError) -> Outcome:
    """Return exit code and HTTP status of an error, by its nearest listed class."""
    return next(OUTCOMES[kind] for kind in type(error).__mro__ if kind in OUTCOMES)


def raise_together(wrong: Iterable[Misuse]) -> None:
    """Raise one error as it is, several as Misuses, none not at all."""
    each = tuple(wrong)
    if len(each) > 1:
        text = "; ".join(error.message for error in each)
        raise Misuses(f"{len(each)} settings are wrong: {text}", code="config.several", each=each)
    if each:
        raise each[0]


def session_absent(session_id: str, more: str = "") -> NotFound:
    """There is no session of this name. more: other things found under the name."""
    return NotFound(
        f"there is no session {session_id}{more}", code="session.absent", hint="lucid sessions list"
    )
