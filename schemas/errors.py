"""Owns every error that this system raises on purpose, and what each kind means for a caller.

    LucidError
      Retryable            the same call may succeed later; a stage naks with delay
        Unavailable        a server or file system does not answer
        NoSpace            a disk or stream is full
        Conflict           another writer was first; read again and decide again
      Rejected             the same call will never succeed; a stage dead-letters
        Misuse             usage or configuration is wrong
        EvidenceFalse      bytes are not what was signed or sealed
        NotFound           no such session, chunk, file
        Unreadable         a file is there and cannot be read
        RefusedByState     the state machine does not allow it (also a ValueError)
        Denied             not allowed, or the wrong key

1. `code` is stable (`area.word`) and machine-readable; the sentence may be reworded, the code may not.
2. The sentence names the thing, what is allowed and, in `hint`, a command that cures it.
3. `OUTCOMES` is the one table from kind to exit code and HTTP status; a test proves it total.
"""

import errno
from typing import NamedTuple


class LucidError(Exception):
    """An expected failure. `code` is stable, `hint` says what to do, `place` says where."""

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


class Rejected(LucidError):
    """The same call will never succeed."""


class Misuse(Rejected):
    """Usage or configuration is wrong."""


class EvidenceFalse(Rejected):
    """Bytes are not what was signed or sealed."""


class NotFound(Rejected):
    """There is no such thing."""


class Unreadable(Rejected):
    """It is there and cannot be read: nothing is known of what it holds."""


class RefusedByState(Rejected, ValueError):
    """The state machine does not allow this now."""


class Denied(Rejected):
    """Not allowed, or the key does not fit."""


class Outcome(NamedTuple):
    """What a kind of error means outside: process exit code, HTTP status."""

    exit_code: int
    http_status: int


FULL_ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Of an OSError: what becomes NoSpace."""

EXIT_OK, EXIT_BUG, EXIT_SIGNER_UNKNOWN, EXIT_INTERRUPTED = 0, 1, 9, 130

OUTCOMES: dict[type[LucidError], Outcome] = {
    Misuse: Outcome(2, 400),
    EvidenceFalse: Outcome(3, 422),
    NotFound: Outcome(4, 404),
    Unreadable: Outcome(4, 403),
    RefusedByState: Outcome(5, 409),
    Conflict: Outcome(5, 409),
    Denied: Outcome(6, 403),
    Rejected: Outcome(2, 400),
    Unavailable: Outcome(7, 503),
    NoSpace: Outcome(8, 507),
    Retryable: Outcome(7, 503),
    LucidError: Outcome(1, 500),
}


def outcome(error: LucidError) -> Outcome:
    """Exit code and HTTP status of an error, by its nearest listed class."""
    return next(OUTCOMES[kind] for kind in type(error).__mro__ if kind in OUTCOMES)


def session_absent(session_id: str, more: str = "") -> NotFound:
    """There is no session of this name. more: what was found under the name all the same."""
    return NotFound(
        f"there is no session {session_id}{more}", code="session.absent", hint="lucid sessions list"
    )
