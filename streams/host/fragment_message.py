"""The message that carries one fragment: how many plain bytes fit into it, and its headers."""

from schemas.errors import Misuse
from schemas.events.headers import headers
from schemas.format.fragment import HEADER_BYTES, MAX_DATA_PLAIN, SIGNATURE_BYTES, TAG_BYTES

AROUND_BYTES = HEADER_BYTES + TAG_BYTES + SIGNATURE_BYTES + 1024
"""Bytes of a message that are not plain bytes; its NATS headers have less than 500."""
USUAL_PAYLOAD = 1 << 20
"""The default of a server for one message."""
LEAST_PAYLOAD = 16 << 10
"""A server that takes less in one message is refused: most of it would be overhead."""
EVENT_TYPE = "lucid.fragment.v1"


def fragment_headers(host: str, uid: bytes, seq: int, traceparent: str = "") -> dict[str, str]:
    """CloudEvents attributes and a trace. No message id: one host could swallow another's message."""
    return headers(
        EVENT_TYPE,
        traceparent,
        source=f"lucid/hosts/{host}",
        id=f"{uid.hex()}.0.{seq}",
    )


def fragment_bytes(chunk_bytes: int, max_payload: int = USUAL_PAYLOAD) -> int:
    """The most plain bytes of one fragment: four fill a chunk, so that a chunk is never far below its size.

    max_payload: the most bytes that the server takes in one message. Raises Misuse (nats.max_payload).
    """
    if max_payload < LEAST_PAYLOAD:
        raise Misuse(
            f"this NATS server takes messages of {max_payload} bytes, a recording needs {LEAST_PAYLOAD}",
            code="nats.max_payload",
            hint="raise max_payload in the server's configuration; 1MB is its default",
        )
    return min(MAX_DATA_PLAIN, chunk_bytes // 4, max_payload - AROUND_BYTES)
