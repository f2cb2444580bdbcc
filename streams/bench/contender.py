"""Defines a contender of the comparison: its task, its figures, and the check that it lost no byte."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from blake3 import blake3

from handlers.format.chunk import open_plain
from schemas.config.settings import VARIABLES, Settings
from schemas.config.values import MIB
from schemas.errors import EvidenceFalse
from schemas.format.file_names import chunk_file
from streams.bench.data import BLOCK_BYTES, Source
from streams.bench.meter import Used


@dataclass(frozen=True, slots=True)
class Task:
    """One measurement of one contender.

    folder: empty, its own, removed afterwards. environment: of its processes, without paths but theirs.
    """

    source: Source
    folder: Path
    settings: Settings
    environment: Mapping[str, str]

    def of_chunks(self, chunk_bytes: int) -> "Task":
        """The same with chunks of another size."""
        environment = with_chunk_size(self.environment, chunk_bytes)
        settings = replace(self.settings, chunk_bytes=chunk_bytes)
        return replace(self, settings=settings, environment=environment)


@dataclass(frozen=True, slots=True)
class Measure:
    """The figures of one measurement. stored: bytes on disk, checked against the source."""

    seconds: float
    """From the first fragment to the last chunk durable and read back; of a peer, the whole run."""
    chunks: int
    stored: int
    used: Mapping[str, Used]
    others: float
    """Share of all cores that other processes took meanwhile, 0 to 1."""
    more: Mapping[str, Any] = field(default_factory=dict)
    """Figures that only this contender has; times in seconds."""


Contender = Callable[[Task], Awaitable[Measure]]

CHUNK_SIZE = next(variable for variable in VARIABLES if variable.field == "chunk_bytes")
"""The setting of the chunk size."""
LEAST_CHUNK_BYTES = 1 << 18
"""The smallest chunks that a session may have."""


def with_chunk_size(environment: Mapping[str, str], chunk_bytes: int) -> dict[str, str]:
    """An environment with chunks of another size."""
    kept = {name: text for name, text in environment.items() if name not in CHUNK_SIZE.synonyms}
    return kept | {CHUNK_SIZE.name: f"{chunk_bytes / MIB:.6f}"}


def check_chunks(folder: Path, dek: bytes, chunks: int, source: Source, name: str) -> int:
    """Open chunks 0 to `chunks`, compare them with the source, and return their bytes on disk.

    folder: of the session's chunks. name: of the contender. Raises EvidenceFalse (bench.false, chunk.*).
    """
    plain, stored = blake3(), 0
    for index in range(chunks):
        path = folder / chunk_file(index)
        try:
            sealed = path.read_bytes()
        except OSError as error:
            raise EvidenceFalse(
                f"{name} did not store chunk {index}: {error.strerror}", code="bench.false", place=str(path)
            ) from None
        stored += len(sealed)
        plain.update(open_plain(dek, sealed))
    check_digest(plain.digest(), source, name)
    return stored


def check_digest(found: bytes, source: Source, name: str) -> None:
    """Compare the digest of the stored bytes with the source's. Raises EvidenceFalse (bench.false)."""
    if found != source.digest:
        raise EvidenceFalse(
            f"{name} stored {found.hex()[:16]} instead of the source's {source.digest.hex()[:16]}",
            code="bench.false",
        )


def digest_of(path: Path) -> bytes:
    """BLAKE3 of a file."""
    digest = blake3()
    with path.open("rb", buffering=0) as file:
        while block := file.read(BLOCK_BYTES):
            digest.update(block)
    return digest.digest()
