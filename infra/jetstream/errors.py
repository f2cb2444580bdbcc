"""Translates refusals and failures of NATS servers into our errors.

1. A failure that passes by itself is Unavailable, one that needs disk or limits is NoSpace, a lost race is
   Conflict. Any other would fail again and is Rejected or Denied.
2. A publish to a missing stream gets no responders (503): an outage, not a bad message.
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


def from_answer(error: dict[str, Any], attempt: str) -> LucidError:
    """Return our error for the `error` member of a JetStream answer. attempt: words for the message."""
    number, status = int(error.get("err_code", 0)), int(error.get("code", 0))
    text = f"{attempt}: {error.get('description', 'no reason given')}"
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


def no_answer(attempt: str, timeout_s: float) -> Unavailable:
    return Unavailable(f"{attempt}: no answer within {timeout_s:g} s", code="nats.timeout")


def no_responders(attempt: str) -> Unavailable:
    return Unavailable(f"{attempt}: no responder (no stream, or no JetStream)", code="nats.nobody")


def disconnected(attempt: str) -> Unavailable:
    return Unavailable(f"{attempt}: the connection to NATS is lost", code="nats.disconnected")


def too_large(subject: str, size: int, most: int) -> Rejected:
    return Rejected(f"{subject}: {size} bytes; the server takes at most {most}", code="nats.too_large")


def forbidden(attempt: str) -> Denied:
    return Denied(
        f"this user of the NATS server may not {attempt}",
        code="nats.forbidden",
        hint="give the user that right in the server's configuration",
    )


def no_jetstream(where: str) -> Unavailable:
    return Unavailable(
        f"{where}: this NATS server has no JetStream, or not for this user",
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
        "no system is running here, so the address of its NATS server is unknown",
        code="nats.unreachable",
        hint="start it: lucid up",
    )


def denied(where: str, text: str) -> Denied:
    return Denied(f"the NATS server at {where} refuses these credentials: {text}", code="nats.denied")


def refused(where: str, text: str) -> Unavailable:
    return Unavailable(f"the NATS server at {where} refuses the connection: {text}", code="nats.refused")


def no_tls(where: str, why: str = "") -> Denied:
    return Denied(
        f"the server at {where} offers no TLS{f' ({why})' if why else ''}; no credentials were sent",
        code="nats.no_tls",
        hint="turn TLS on there, or write nats:// to allow a link in plain text",
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


def foreign(where: str, text: str) -> Unavailable:
    return Unavailable(
        f"the server at {where} is no NATS server: it sends {text!r}",
        code="nats.foreign",
        hint="correct host and port in NATS_URL",
    )


def silent(where: str) -> Unavailable:
    return Unavailable(
        f"the server at {where} sends nothing, as no NATS server does",
        code="nats.silent",
        hint="correct host and port in NATS_URL, or look at that server",
    )


def hung_up(where: str, why: str) -> Unavailable:
    return Unavailable(
        f"the server at {where} closes the connection at its start{f': {why}' if why else ''}",
        code="nats.hung_up",
        hint="correct host and port in NATS_URL, or read that server's log",
    )


def _says(text: str, *words: str) -> bool:
    lowered = text.lower()
    return any(word in lowered for word in words)
