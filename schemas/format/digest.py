"""The two digests of the format, H(x) and D(context, x) (format.md §1).

1. One digest uses one thread: the pipeline has threads of its own.
2. Large inputs are hashed without the interpreter's lock, so several threads hash in parallel.
"""

from collections.abc import Iterable
from typing import NamedTuple

from blake3 import blake3

Buffer = bytes | bytearray | memoryview
"""An object that holds bytes; a memoryview must be contiguous and of format B."""

DIGEST_BYTES = 32
ZERO = bytes(DIGEST_BYTES)


def h(data: Buffer) -> bytes:
    """H(data): BLAKE3-256."""
    return blake3(data).digest()


class Content(NamedTuple):
    """The content of a file: its length in bytes, and H of these bytes."""

    size: int
    digest: bytes


def content(pieces: Iterable[Buffer]) -> Content:
    """Return length and digest of joined pieces. Each piece is hashed before the next one is requested."""
    size, digest = 0, blake3()
    for piece in pieces:
        size += len(piece)
        digest.update(piece)
    return Content(size, digest.digest())


def d(context: str, data: Buffer) -> bytes:
    """D(context, data): BLAKE3 in derive-key mode."""
    return blake3(data, derive_key_context=context).digest()
