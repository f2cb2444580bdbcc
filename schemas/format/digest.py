"""Owns the two digests of the format, H(x) and D(context, x) (format.md §1).

1. One thread for each digest: the pipeline has threads of its own.
2. Large inputs are hashed without the interpreter's lock, so digests of several threads run side by side.
"""

from collections.abc import Iterable
from typing import NamedTuple

from blake3 import blake3

Buffer = bytes | bytearray | memoryview
"""Anything that holds bytes; a memoryview is always contiguous and of format B."""

DIGEST_BYTES = 32
ZERO = bytes(DIGEST_BYTES)


def h(data: Buffer) -> bytes:
    """H(data): BLAKE3-256."""
    return blake3(data).digest()


class Content(NamedTuple):
    """What a file holds: its length in bytes, and H of all of them."""

    size: int
    digest: bytes


def content(pieces: Iterable[Buffer]) -> Content:
    """Of what comes in pieces; each is read before the next one is asked for."""
    size, digest = 0, blake3()
    for piece in pieces:
        size += len(piece)
        digest.update(piece)
    return Content(size, digest.digest())


def d(context: str, data: Buffer) -> bytes:
    """D(context, data): BLAKE3 in derive-key mode."""
    return blake3(data, derive_key_context=context).digest()
