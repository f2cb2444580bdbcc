"""The headers of our messages: CloudEvents attributes and the trace id."""

from collections.abc import Mapping

SPEC_VERSION = "1.0"
MOST_BYTES = 4 << 10
"""Limit for all names and values of one message's headers. Ours take < 500; the server accepts 1 MiB."""
TOO_LONG = f"its headers are longer than {MOST_BYTES} bytes"


def headers(kind: str, trace: str = "", **attributes: str) -> dict[str, str]:
    """Return the headers of a message of type `kind`. trace: a traceparent; attributes: source, id."""
    fields = {"ce-specversion": SPEC_VERSION, "ce-type": kind}
    fields |= {f"ce-{name}": text for name, text in attributes.items()}
    return fields | ({"traceparent": trace} if trace else {})


def too_long(found: Mapping[str, str]) -> bool:
    """Whether the headers exceed MOST_BYTES: no message of ours has such headers."""
    return sum(len(f"{name}{text}".encode()) for name, text in found.items()) > MOST_BYTES
