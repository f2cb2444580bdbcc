"""Owns the proof that a contender stored what it was given: its chunks, opened again, are the source."""

from pathlib import Path

from blake3 import blake3

from handlers.format.chunk import open_plain
from schemas.errors import EvidenceFalse
from schemas.format.file_names import chunk_file
from streams.bench.data import Source


def check_chunks(folder: Path, dek: bytes, chunks: int, source: Source, who: str) -> int:
    """Open chunks 0 to `chunks`, compare with the source; return the bytes that they take on disk.

    folder: of the session's chunks. Raises EvidenceFalse (bench.false, chunk.*).
    """
    plain, stored = blake3(), 0
    for index in range(chunks):
        path = folder / chunk_file(index)
        try:
            sealed = path.read_bytes()
        except OSError as error:
            raise EvidenceFalse(
                f"{who} did not store chunk {index}: {error.strerror}", code="bench.false", place=str(path)
            ) from None
        stored += len(sealed)
        plain.update(open_plain(dek, sealed))
    check_digest(plain.digest(), source, who)
    return stored


def check_digest(found: bytes, source: Source, who: str) -> None:
    """Raises EvidenceFalse (bench.false)."""
    if found != source.digest:
        raise EvidenceFalse(
            f"what {who} stored is not what it was given: {found.hex()[:16]}, not {source.digest.hex()[:16]}",
            code="bench.false",
        )
