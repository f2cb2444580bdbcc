"""Makes the data set of a measurement, and cuts it into the units that are recorded.

1. `incompressible` is random. `screen` is a drawn desktop, encoded as a capture encodes it and repeated to
   size. Bytes differ in every repetition, so that no contender stores one for many.
2. A recording is cut the same way for every contender: as the publisher cuts it.
"""

import os
import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from blake3 import blake3

from handlers.format.mp4 import BoxSplitter
from schemas.errors import Misuse, NotFound
from schemas.format.digest import Buffer
from schemas.ports.processes import Picture
from streams.host.publisher import READ_FRAGMENTS
from streams.roles.drivers import drawn

INCOMPRESSIBLE, SCREEN = "incompressible", "screen"
BLOCK_BYTES = 8 << 20
SCREEN_S = 20.0
"""4 MB of recording: twice zstd's window, so that the codec sees no repetition."""
HALF_BYTES_PER_S = 400_000
"""Half of a small data set is drawn; the other half repeats it."""
TOUCH_EVERY_BYTES = 4096
"""One byte in so many differs from the repetition before, so that no block of a peer occurs twice."""
MOOF_AT = slice(4, 8)

UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(i?)b?", re.I)
RATE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmg]?)(?:bit(?:/s)?|bps)", re.I)


@dataclass(frozen=True, slots=True)
class Source:
    """A file to record. digest: BLAKE3 of all of it."""

    path: Path
    kind: str
    size: int
    digest: bytes

    def blocks(self) -> Iterator[bytes]:
        """The file, read in order."""
        with self.path.open("rb", buffering=0) as file:
            while block := file.read(BLOCK_BYTES):
                yield block


def parse_size(text: str, option: str = "--size") -> int:
    """Bytes of "1GB", "64MiB", "500000". Raises Misuse (bench.size)."""
    match = SIZE.fullmatch(text.strip())
    if match is None or not float(match[1]) or (match[3] and not match[2]):
        raise Misuse(f"{option} {text} is no size; write 1GB, 64MiB or 500000", code="bench.size")
    power = list(UNITS).index(match[2].lower())
    return int(float(match[1]) * (1024 if match[3] else 1000) ** power)


def parse_rate(text: str) -> int:
    """Bytes a second of "1.2Mbit". Raises Misuse (bench.rate)."""
    match = RATE.fullmatch(text.strip())
    if match is None or not float(match[1]):
        raise Misuse(f"--rate {text} is no rate; write 1.2Mbit or 800kbit", code="bench.rate")
    return int(float(match[1]) * UNITS[match[2].lower()] / 8)


def make_source(kind: str, size: int, folder: Path) -> Source:
    """The data set `kind`, or the file of that name; its bytes are in the page cache on return.

    size: bytes to make; a file has its own. Raises NotFound (bench.data), Misuse (bench.empty), Unavailable
    (capture.*).
    """
    if kind not in (INCOMPRESSIBLE, SCREEN):
        return _hashed(kind, Path(kind))
    path = folder / f"{kind}.bin"
    with path.open("wb", buffering=0) as file:
        made = 0
        for block in _random() if kind == INCOMPRESSIBLE else _screen(size):
            made += file.write(block[: size - made])
            if made >= size:
                break
        os.fsync(file.fileno())  # so that its write-back does not disturb the first contender
    return _hashed(kind, path)


def units(source: Path, block_bytes: int) -> Iterator[tuple[memoryview, bool]]:
    """Plain bytes of each data fragment, and whether a key frame begins it: as the publisher cuts a file."""
    splitter = BoxSplitter(block_bytes)
    with source.open("rb", buffering=0) as file:
        while block := file.read(READ_FRAGMENTS * block_bytes):
            for unit in splitter.feed(block):
                yield from _cut(unit.data, unit.key_frame, block_bytes)
    for unit in splitter.finish():
        yield from _cut(unit.data, unit.key_frame, block_bytes)


def _cut(data: Buffer, key_frame: bool, block_bytes: int) -> Iterator[tuple[memoryview, bool]]:
    view = memoryview(data)
    for at in range(0, len(view), block_bytes):
        yield view[at : at + block_bytes], key_frame and at == 0


def _random() -> Iterator[bytes]:
    while True:
        yield secrets.token_bytes(BLOCK_BYTES)


def _screen(size: int) -> Iterator[bytes]:
    splitter = BoxSplitter()
    recorded = splitter.feed(drawn(min(SCREEN_S, max(2.0, size / HALF_BYTES_PER_S)), Picture()))
    yield bytes(recorded[0].data)
    fragments = [bytes(unit.data) for unit in recorded if unit.data[MOOF_AT] == b"moof"]
    yield from fragments
    while True:
        for fragment in fragments:
            yield _touched(fragment)


def _touched(fragment: bytes) -> bytes:
    """The fragment with other bytes in its pictures; its boxes stay whole."""
    begin = fragment.index(b"mdat") + 4
    made, places = bytearray(fragment), range(begin, len(fragment), TOUCH_EVERY_BYTES)
    for place, byte in zip(places, secrets.token_bytes(len(places)), strict=True):
        made[place] ^= byte | 1
    return bytes(made)


def _hashed(kind: str, path: Path) -> Source:
    """Reading the whole file also brings it into the page cache."""
    digest, size = blake3(), 0
    try:
        with path.open("rb", buffering=0) as file:
            while block := file.read(BLOCK_BYTES):
                digest.update(block)
                size += len(block)
    except OSError as error:
        raise NotFound(
            f"data set {kind} is neither {SCREEN}, {INCOMPRESSIBLE} nor a file that can be read: "
            f"{error.strerror}",
            code="bench.data",
        ) from None
    if not size:
        raise Misuse(f"{kind} is empty", code="bench.empty")
    return Source(path.absolute(), kind, size, digest.digest())
