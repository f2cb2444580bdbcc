"""Opens chunks with the session's keys, and rebuilds the fragments that the host signed.

1. The key must fit: its own id, the session's id, and the public key that the host sealed to.
2. A chunk is opened. Its fragments are cut out of it by their rows and sealed again under their part key.
   Every head is recomputed up to the listed one.
3. Of a lost chunk only the rows are left: its heads are still recomputed, its bytes are not.
4. One chunk is in memory at a time.

Source: format.md §3, §4, §6, §8.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from handlers.crypto.keys import SessionKeys
from handlers.crypto.signatures import verify_signature
from handlers.format.chunk import open_chunk
from handlers.format.compression import decompress
from handlers.format.fragment import reseal_digest
from handlers.verify.report import Finding
from schemas.errors import Denied, LucidError, Rejected
from schemas.format import fragment
from schemas.format.digest import h
from schemas.format.file_names import copied_chunk
from schemas.format.fragment import Header, Kind
from schemas.format.index import FragmentRow
from schemas.format.manifest import Chunk, Manifest
from schemas.format.trust import Keys
from schemas.ports.evidence import Evidence

PartKeys = Mapping[tuple[int, int], bytes]


@dataclass(frozen=True, slots=True)
class RebuiltFragment:
    """A fragment, rebuilt from its row and the chain."""

    header: Header
    head: bytes
    row: FragmentRow


def named_keys(raw: bytes) -> Keys:
    """Parse keys.json. Raises Denied (keys.malformed)."""
    try:
        return Keys.parse(raw)
    except Rejected as error:
        raise Denied(
            f"the keys file is malformed: {error.message}",
            code="keys.malformed",
            hint="it must be the file that was exported, to the byte",
        ) from None


def fit_keys(manifest: Manifest, named: Keys) -> SessionKeys:
    """Return the session's keys. Raises Denied (keys.unfit): they are another session's."""
    keys = SessionKeys(named.dek)
    if named.uid != manifest.uid:
        raise Denied(f"the keys file is not of session {manifest.session}", code="keys.unfit")
    if named.dek_id != manifest.dek_id or keys.dek_id != manifest.dek_id:
        raise Denied(f"the keys file holds another key than session {manifest.session}'s", code="keys.unfit")
    return keys


def check_intake(manifest: Manifest, keys: SessionKeys) -> Iterator[Finding]:
    """Check that the host sealed to this key."""
    if h(keys.intake_public) != manifest.host.intake:
        yield Finding("keys.intake", "keys", "gives another public key than the host sealed to")


def open_parts(manifest: Manifest, keys: SessionKeys) -> tuple[dict[tuple[int, int], bytes], list[Finding]]:
    """Open every part key; return them by (track, part)."""
    opened: dict[tuple[int, int], bytes] = {}
    found: list[Finding] = []
    for part in manifest.parts:
        try:
            opened[part.track, part.part] = keys.open_part_key(fragment.parse(part.fragment))
        except (LucidError, ValueError):
            place = f"track {part.track} part {part.part}"
            found.append(Finding("open.part", place, "its key does not open with the session's key"))
    return opened, found


def open_listed(evidence: Evidence, keys: SessionKeys, index: int, sealed: int) -> bytes | Finding | None:
    """Return the plain bytes of a chunk; None: its file is missing or has another length (check_files)."""
    raw = evidence.chunk(index, sealed)
    if raw is None or len(raw) != sealed:
        return None
    try:
        header, payload = open_chunk(keys.dek, raw)
    except LucidError as error:
        return Finding("open.chunk", copied_chunk(index), f"{error.message} ({error.code})")
    try:
        return decompress(header.codec, payload, header.plain)
    except LucidError as error:
        return Finding("open.payload", copied_chunk(index), error.message)


def rebuild(
    manifest: Manifest, chunk: Chunk, rows: list[FragmentRow]
) -> tuple[list[RebuiltFragment], list[Finding]]:
    """Rebuild the fragments of a chunk from its rows: headers and heads, checked against the entry."""
    where = f"chunk {chunk.index}"
    found: list[Finding] = []
    rebuilt: list[RebuiltFragment] = []
    head = chunk.prev_head
    for seq, row in enumerate(rows, chunk.first_seq):
        header = row.header(manifest.uid, chunk.track, chunk.part, seq, head)
        raw = header.pack()
        try:
            Header.parse(raw)
        except Rejected as error:
            found.append(Finding("rows.malformed", where, f"seq {seq}: {error.message}"))
        head = fragment.head(raw, row.body_digest)
        if not verify_signature(manifest.host.key, head, row.signature, fragment.SIGNED):
            found.append(Finding("fragment.signature", f"{where} seq {seq}", "the host did not sign it"))
        rebuilt.append(RebuiltFragment(header, head, row))
    agreed = {
        "number of fragments": (len(rows), chunk.last_seq - chunk.first_seq + 1),
        "plain bytes": (sum(row.plain for row in rows), chunk.plain),
        "first time": (rows[0].time_us if rows else None, chunk.first_us),
        "last time": (rows[-1].time_us if rows else None, chunk.last_us),
    }
    for name, (counted, listed) in agreed.items():
        if counted != listed:
            found.append(Finding("rows.chunk", where, f"{name}: the rows say {counted}, the entry {listed}"))
    if head != chunk.last_head:
        found.append(
            Finding(
                "fragment.head",
                where,
                "the head that its fragments give is not the listed one",
                sealed=chunk.last_head.hex(),
                found=head.hex(),
            )
        )
    return rebuilt, found


def check_bytes(
    rebuilt: list[RebuiltFragment], plain: bytes, part_key: bytes, index: int
) -> Iterator[Finding]:
    """Cut every data fragment out of the chunk, seal it again, and compare its digest with the signed one."""
    view = memoryview(plain)
    at = 0
    for item in rebuilt:
        if item.header.kind is not Kind.DATA:
            continue
        part = view[at : at + item.row.plain]
        at += item.row.plain
        if len(part) != item.row.plain:
            return  # a finding already (rows.chunk)
        made = reseal_digest(part_key, item.header, part)
        if made != item.row.body_digest:
            yield Finding(
                "fragment.digest",
                f"chunk {index} seq {item.header.seq}",
                "the bytes are not those that the host signed",
                sealed=item.row.body_digest.hex(),
                found=made.hex(),
            )
