"""Owns the headers of our messages: attributes of CloudEvents, and the trace that a message belongs to."""

SPEC_VERSION = "1.0"


def headers(kind: str, trace: str = "", **attributes: str) -> dict[str, str]:
    """The headers of a message of type `kind`. trace: a traceparent; attributes: such as source, id."""
    said = {"ce-specversion": SPEC_VERSION, "ce-type": kind}
    said |= {f"ce-{name}": text for name, text in attributes.items()}
    return said | ({"traceparent": trace} if trace else {})
