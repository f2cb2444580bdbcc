"""Packs the evidence of a sealed session as a zip stream, with the layout of an evidence copy.

1. Members are stored, not compressed: sealed bytes do not compress. One chunk at a time is in memory.
2. The bytes are those of the store; docs/verify.md says how they are verified.

Source: docs/format.md §11.
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from zlib import crc32

from stream_zip import NO_COMPRESSION_64, stream_zip

from schemas.errors import EvidenceFalse, NotFound
from schemas.format import dsse
from schemas.format.chunk_header import MAX_SEALED
from schemas.format.file_names import copied_chunk, copied_manifest
from schemas.ports.evidence import Evidence

HISTORY, KEYS = "history.ndjson", "keys.json"
MODE = 0o100600
DATED = datetime(1980, 1, 1, tzinfo=UTC)
"""The same for all members: the same evidence gives the same zip."""


def evidence_zip(evidence: Evidence, keys: bytes | None = None) -> Iterator[bytes]:
    """Yield the zip. keys: keys.json, its holder may watch. Blocks.

    Raises EvidenceFalse (manifest.missing), NotFound (evidence.absent), Unreadable.
    """
    if not evidence.seals().numbers:
        raise EvidenceFalse("there is no manifest of a sealed session", code="manifest.missing")
    members = _members(evidence, keys)
    return iter(
        stream_zip(
            (name, DATED, MODE, NO_COMPRESSION_64(len(data), crc32(data)), (data,)) for name, data in members
        )
    )


def _members(evidence: Evidence, keys: bytes | None) -> Iterator[tuple[str, bytes]]:
    for seal_no in sorted(evidence.seals().numbers):
        manifest = evidence.manifest(seal_no, dsse.MAX_BYTES[dsse.MANIFEST])
        yield _present(copied_manifest(seal_no), manifest)
    for index in sorted(evidence.indices().numbers):
        yield _present(copied_chunk(index), evidence.chunk(index, MAX_SEALED))
    yield HISTORY, b"".join(evidence.history(dsse.MAX_BYTES[dsse.MANIFEST]) or ())
    if keys is not None:
        yield KEYS, keys


def _present(name: str, data: bytes | None) -> tuple[str, bytes]:
    if data is None:
        raise NotFound(f"{name} was removed while it was copied", code="evidence.absent")
    return name, data
