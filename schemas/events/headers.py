"""Owns the headers of our messages: attributes of CloudEvents, and the trace that a message belongs to."""

from collections.abc import Mapping

SPEC_VERSION = "1.0"
MOST_BYTES = 4 << 10
"""Names and texts of all headers of one message. Ours take less than 500; the server takes a MiB."""
TOO_LONG = f"its headers are longer than {MOST_BYTES} bytes"


def headers(kind: str, trace: str = "", **attributes: str) -> dict[str, str]:
    """The headers of a message of type `kind`. trace: a traceparent; attributes: such as source, id."""
    said = {"ce-specversion": SPEC_VERSION, "ce-type": kind}
    said |= {f"ce-{name}": text for name, text in attributes.items()}
    return said | ({"traceparent": trace} if trace else {})


def too_long(found: Mapping[str, str]) -> bool:
    """Whether the headers of a message are more than any of ours has."""
    return sum(len(f"{name}{text}".encode()) for name, text in found.items()) > MOST_BYTES
