"""Translates what servers refuse, and what goes wrong on the way to them, into our errors.

1. What passes by itself is Unavailable, what needs room is NoSpace, a lost race is Conflict;
   anything else would fail again and is Rejected.
2. A missing stream answers a publish with silence (503): an outage, not poison.
"""

from typing import Any

from schemas.errors import Conflict, Denied, LucidError, NoSpace, NotFound, Rejected, Unavailable

WRONG_LAST_SEQUENCE = frozenset({10071, 10164})
ABSENT = frozenset({10014, 10037, 10043, 10059})
CONSUMER_ABSENT, MESSAGE_ABSENT, STREAM_ABSENT = 10014, 10037, 10059
TOO_MANY_REQUESTS = 10167
"""Back-pressure: more bytes in flight than the server queues. It stored nothing."""
STORE_FAILED = 10077
"""One code for limits and for a failing disk; only the text tells them apart."""
NO_RESOURCES = frozenset({10002, 10023, 10028, 10047})

MOST_STREAMS = 10027
NOT_ENABLED = frozenset({10039, 10076})
DELETE_FAILED = 10057
INVALID = frozenset({10052})
"""A configuration that the server will never take, although it answers with status 500."""

_DISK_FULL = "no space left"
_LIMITS = ("maximum bytes", "maximum messages", "resource")


def from_answer(error: dict[str, Any], what: str) -> LucidError:
    """Return our error for the `error` member of a JetStream answer; `what` names the attempt."""
    number, status = int(error.get("err_code", 0)), int(error.get("code", 0))
    text = f"{what}: {error.get('description', 'no reason given')}"
    if number in WRONG_LAST_SEQUENCE:
        return Conflict(text, code="append.conflict")
    if number in NOT_ENABLED:
        return no_jetstream(text)
    if number == MOST_STREAMS:
        return NoSpace(
            text,
            code="account.streams",
            hint="let this user's account have more streams (max_streams in the server's configuration)",
        )
    if number in NO_RESOURCES or (number == STORE_FAILED and _says(text, *_LIMITS)):
        return NoSpace(
            text,
            code="stream.full",
            hint="free some disk; the streams of a server of your own take NATS_MAX_STORAGE_MB",
        )
    if _says(text, _DISK_FULL):
        return NoSpace(text, code="disk.full", hint="free some disk; the server then wants a restart")
    if number == TOO_MANY_REQUESTS or status == 429:
        return Unavailable(text, code="stream.busy")
    if number == STORE_FAILED or (status >= 500 and number not in INVALID):
        return Unavailable(text, code="stream.unavailable")
    if number in ABSENT or status == 404:
        return NotFound(text, code="stream.absent")
    return Rejected(text, code=f"stream.{number or status}")


def no_answer(what: str, timeout_s: float) -> Unavailable:
    return Unavailable(f"{what}: no answer within {timeout_s:g} s", code="nats.timeout")


def no_responders(what: str) -> Unavailable:
    return Unavailable(f"{what}: nobody listens there (no stream, or no JetStream)", code="nats.nobody")


def disconnected(what: str) -> Unavailable:
    return Unavailable(f"{what}: the connection to NATS is lost", code="nats.disconnected")


def too_large(subject: str, size: int, most: int) -> Rejected:
    return Rejected(f"{subject}: {size} bytes, and the server takes {most}", code="nats.too_large")


def forbidden(what: str) -> Denied:
    return Denied(
        f"this user of the NATS server may not {what}",
        code="nats.forbidden",
        hint="give the user that right in the server's configuration",
    )


def no_jetstream(what: str) -> Unavailable:
    return Unavailable(
        f"{what}: this NATS server has no JetStream, or not for this user",
        code="nats.no_jetstream",
        hint="turn it on in that server's configuration: jetstream {}",
    )


def unreachable(where: str, why: str) -> Unavailable:
    return Unavailable(
        f"no NATS server answers at {where}: {why}",
        code="nats.unreachable",
        hint="start that server; where NATS_URL is unset: lucid up",
    )


def nowhere() -> Unavailable:
    return Unavailable(
        "nothing is running that says where its NATS server is",
        code="nats.unreachable",
        hint="start it: lucid up",
    )


def denied(where: str, said: str) -> Denied:
    return Denied(f"the NATS server at {where} refuses these credentials: {said}", code="nats.denied")


def refused(where: str, said: str) -> Unavailable:
    return Unavailable(f"the NATS server at {where} refuses the connection: {said}", code="nats.refused")


def no_tls(where: str, why: str = "") -> Denied:
    return Denied(
        f"the server at {where} offers no TLS{f' ({why})' if why else ''}; no credentials were sent",
        code="nats.no_tls",
        hint="turn TLS on there, or write nats:// where a link in plain text will do",
    )


def tls_wanted(where: str) -> Denied:
    return Denied(
        f"the NATS server at {where} takes TLS only",
        code="nats.tls_wanted",
        hint="write tls:// in NATS_URL",
    )


def untrusted(where: str, why: str) -> Denied:
    return Denied(
        f"the certificate of the server at {where} is not trusted: {why}; no credentials were sent",
        code="nats.certificate",
        hint="write the host's name as the certificate has it; SSL_CERT_FILE names a file of certificates "
        "to trust",
    )


def foreign(where: str, said: str) -> Unavailable:
    return Unavailable(
        f"what answers at {where} is no NATS server: it says {said!r}",
        code="nats.foreign",
        hint="correct host and port in NATS_URL",
    )


def silent(where: str) -> Unavailable:
    return Unavailable(
        f"what answers at {where} does not speak as a NATS server: it says nothing",
        code="nats.silent",
        hint="correct host and port in NATS_URL, or look at that server",
    )


def hung_up(where: str, why: str) -> Unavailable:
    return Unavailable(
        f"the server at {where} ends the connection as it begins{f': {why}' if why else ''}",
        code="nats.hung_up",
        hint="correct host and port in NATS_URL, or read that server's log",
    )


def _says(text: str, *words: str) -> bool:
    lowered = text.lower()
    return any(word in lowered for word in words)
