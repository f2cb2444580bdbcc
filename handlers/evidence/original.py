"""Gives the original bytes back: the host's recording, out of sealed chunks.

1. Every chunk is compared with its sealed digest and opened in full before one of its bytes leaves.
2. Lost chunks and missing fragments leave no mark in the output; `lacks` counts them.
3. The caller verifies the manifest before.

Source: format.md §6, §7.
"""

from collections.abc import Iterator

from handlers.crypto.keys import SessionKeys
from handlers.crypto.trust import Trust
from handlers.format.chunk import open_plain
from handlers.verify.opening import check_intake, fit_keys
from handlers.verify.seals import Seals, open_seals
from schemas.errors import EvidenceFalse, NotFound
from schemas.format.digest import h
from schemas.format.file_names import copied_chunk
from schemas.format.fragment import MAIN
from schemas.format.manifest import Chunk, Manifest
from schemas.format.trust import Keys
from schemas.ports.evidence import Evidence


def original(
    evidence: Evidence, manifest: Manifest, keys: SessionKeys, *, track: int = MAIN, part: int | None = None
) -> Iterator[bytes]:
    """Yield the plain bytes of a track, or of one part of it, chunk by chunk.

    Raises NotFound (track.absent, part.absent), EvidenceFalse (chunk.*), Denied (keys.dek), Unreadable.
    """
    if track != MAIN and track not in {one.id for one in manifest.tracks}:
        raise NotFound(f"the recording has no track {track}", code="track.absent")
    chunks = [chunk for chunk in _of(manifest, track, part) if not chunk.entry.lost]
    if part is not None and not chunks:
        raise NotFound(f"track {track} has no part {part}", code="part.absent")
    for chunk in chunks:
        yield _plain(evidence, chunk, keys)


def sealed_manifest(evidence: Evidence) -> Manifest:
    """Return the manifest of the last seal. Form and signature are checked, its signer is not.

    Raises EvidenceFalse (manifest.*), Unreadable.
    """
    seals = Seals()
    for _ in open_seals(evidence, Trust(b"", 0, ()), seals):
        pass
    wrong = [finding for finding in seals.findings if not finding.is_note]
    if seals.last is None or wrong:
        finding = wrong[0]
        raise EvidenceFalse(f"{finding.place}: {finding.message}", code=finding.code, place=finding.place)
    return seals.last.manifest


def opened_by(manifest: Manifest, named: Keys) -> SessionKeys:
    """Return the session's keys. Raises Denied (keys.unfit), EvidenceFalse (keys.intake)."""
    keys = fit_keys(manifest, named)
    for finding in check_intake(manifest, keys):
        raise EvidenceFalse(f"{finding.place}: {finding.message}", code=finding.code, place=finding.place)
    return keys


def lacks(manifest: Manifest, *, track: int = MAIN, part: int | None = None) -> int:
    """Return how many fragments of it are missing."""
    gaps = (gap for gap in manifest.gaps if gap.track == track and part in (None, gap.part))
    return sum(gap.last_seq - gap.first_seq + 1 for gap in gaps)


def parts(manifest: Manifest, *, track: int = MAIN) -> list[int]:
    """Return the numbers of the parts that hold bytes: each began with an encoder of its own."""
    return sorted({chunk.part for chunk in _of(manifest, track, None) if chunk.plain})


def _of(manifest: Manifest, track: int, part: int | None) -> list[Chunk]:
    return [chunk for chunk in manifest.chunks if chunk.track == track and part in (None, chunk.part)]


def _plain(evidence: Evidence, chunk: Chunk, keys: SessionKeys) -> bytes:
    where = copied_chunk(chunk.index)
    sealed = evidence.chunk(chunk.index, chunk.sealed)
    if sealed is None:
        raise EvidenceFalse(f"{where} is not there", code="chunk.missing", place=where)
    if h(sealed) != chunk.digest:
        raise EvidenceFalse(f"{where} does not hold the sealed bytes", code="chunk.digest", place=where)
    return open_plain(keys.dek, sealed)
