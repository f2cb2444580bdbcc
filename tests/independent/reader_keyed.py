"""What a holder of the data key can check besides: contents, every head, every cut.

1. Chunks are opened in the order lengths, commitment, tag, nonce, codec; nothing leaves before the tag.
2. Every data fragment is encrypted again and must give the body digest that the host signed.
3. The cut rule (`why_closed`) is one function over fragments; it looks at no clock and never back.

Source: docs/format.md §5, §6, §8 and §13.
"""

from __future__ import annotations

import base64
import hmac
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import reader_crypto as crypto
from reader_bytes import (
    CHUNK_HEADER,
    DATA,
    FINAL,
    GAP,
    MAX_INDEX_PLAIN,
    PART,
    PAUSE,
    FragmentRow,
    Header,
    decompress,
    pack_entry,
    pack_key_frame,
    read_chunk_header,
    read_fragment_row,
    read_header,
    split_part_body,
    split_rows,
)
from reader_crypto import Bad
from reader_history import Silences
from reader_keyless import Report, is_lost
from reader_shapes import MAX_METADATA, PART_SETTINGS, parse_canonical, read_body

MAX_FRAGMENTS = 2048
MAX_CLEAR = 256 << 10
ReadChunk = Callable[[int], bytes]


def open_chunk(dek: bytes, sealed: bytes) -> bytes:
    """Return the plain bytes of one sealed chunk; raises Bad chunk.*."""
    header = read_chunk_header(sealed)
    raw = sealed[:CHUNK_HEADER]
    key, nonce_key, commitment = crypto.chunk_keys(dek, raw[:72])
    if not hmac.compare_digest(commitment, header.commitment):
        raise Bad("chunk.commitment", "the key commitment is another")
    payload = crypto.aead_open(header.suite, key, header.nonce, sealed[CHUNK_HEADER:], raw)
    if crypto.chunk_nonce(nonce_key, raw[:72], payload, header.suite) != header.nonce:
        raise Bad("chunk.nonce", "the nonce does not come from the payload")
    return decompress(header.codec, payload, header.plain)


@dataclass(slots=True)
class OpenChunk:
    """What the cut rule knows of the chunk that is being filled."""

    first_us: int
    last_seq: int
    part: int
    plain: int = 0
    clear: int = 0
    fragments: int = 0
    paused: bool = False

    def add(self, header: Header) -> None:
        self.plain += header.plain
        self.clear += header.clear
        self.fragments += 1
        self.last_seq = header.seq
        self.paused = header.kind == PAUSE


def why_closed(chunk: OpenChunk, f: Header, size: int, max_seconds: int) -> str:
    """Say why `chunk` closes before `f` of its track is added; empty when it does not."""
    reasons = {
        "pause": chunk.paused,
        "part": f.kind == PART,
        "gap": f.seq != chunk.last_seq + 1,
        "size": chunk.plain + f.plain > size,
        "key_frame": bool(f.flags & 1) and 4 * chunk.plain >= 3 * size,
        "time": chunk.plain > 0 and f.time_us >= chunk.first_us + max_seconds * 1_000_000,
        "fragments": chunk.fragments + 1 > MAX_FRAGMENTS,
        "clear": chunk.clear + f.clear > MAX_CLEAR,
    }
    return next((name for name, holds in reasons.items() if holds), "")


@dataclass(slots=True)
class ChunkRows:
    entry: dict[str, Any]
    rows: list[FragmentRow] = field(default_factory=list)
    headers: list[Header] = field(default_factory=list)


class Keyed:
    """One walk over chunks and index with the data key; `report` receives what does not hold."""

    def __init__(self, manifest: dict[str, Any], dek: bytes, read: ReadChunk, report: Report) -> None:
        self.m = manifest
        self.dek = dek
        self.read = read
        self.report = report
        self.intake = crypto.IntakeKey(dek)
        self.uid = bytes.fromhex(manifest["uid"])
        self.host_key = bytes.fromhex(manifest["host"]["key"])
        self.part_keys: dict[tuple[int, int], bytes] = {}

    def check(self, silences: Silences) -> None:
        """Check all contents; `silences` hears the time of every fragment of track 0."""
        same = crypto.h(self.intake.public).hex() == self.m["host"]["intake"]
        self.report.need(same, "keys.intake", "host.intake", "the intake key is not this data key's")
        try:
            chunks = self._index()
        except Bad as bad:
            self.report.find(bad.code, "index", bad.text)
            return
        for chunk in chunks:
            try:
                self._chunk(chunk)
            except Bad as bad:
                self.report.find(bad.code, f"chunk {chunk.entry['index']:010}", bad.text)
        for chunk in (c for c in chunks if c.entry["track"] == 0):
            for one, two in itertools.pairwise(chunk.headers):
                silences.look(one.time_us, two.time_us, two.seq)
        self._cuts(chunks)

    def _index(self) -> list[ChunkRows]:
        """Read all index chunks into rows by chunk; raises Bad index.*."""
        rows: list[tuple[int, bytes]] = []
        before = None
        for entry in self.m["index"]:
            plain = open_chunk(self.dek, self.read(entry["index"]))
            if not 0 < len(plain) <= MAX_INDEX_PLAIN:
                raise Bad("index.size", "an index chunk is empty or above 8 MiB")
            new = list(split_rows(plain))
            if before is not None and before + 5 + len(new[0][1]) <= MAX_INDEX_PLAIN:
                raise Bad("index.cut", "an index chunk was closed before it was full")
            before = len(plain)
            rows += new
        position = 0

        def take(kind: int) -> bytes:
            nonlocal position
            if position >= len(rows) or rows[position][0] != kind:
                raise Bad("index.order", f"row {position} is not of type {kind}")
            position += 1
            return rows[position - 1][1]

        chunks = [ChunkRows(entry) for entry in self.m["chunks"]]
        for chunk in chunks:
            if take(1) != pack_entry(chunk.entry):
                raise Bad("index.entry", f"the entry of chunk {chunk.entry['index']} is another")
            count = chunk.entry["last_seq"] - chunk.entry["first_seq"] + 1
            while len(chunk.rows) < count:
                chunk.rows.append(read_fragment_row(take(2)))
            if not chunk.rows:
                raise Bad("index.chain", f"chunk {chunk.entry['index']} has no fragment")
            self._headers(chunk)
        for content in self._key_frames(chunks):
            if take(3) != content:
                raise Bad("index.key_frame", "a key frame row is another")
        metadata = take(4)
        if len(metadata) > MAX_METADATA:
            raise Bad("index.metadata", "the metadata is too long")
        if not isinstance(parse_canonical(metadata, "index.metadata"), dict):
            raise Bad("index.metadata", "the metadata is not an object")
        if position != len(rows):
            raise Bad("index.order", "something follows the metadata")
        return chunks

    def _headers(self, chunk: ChunkRows) -> None:
        """Rebuild every header of one chunk and its chain of signed heads; raises Bad."""
        entry = chunk.entry
        head = bytes.fromhex(entry["prev_head"])
        for position, row in enumerate(chunk.rows):
            seq = entry["first_seq"] + position
            header = Header(
                row.kind,
                row.flags,
                entry["track"],
                entry["part"],
                self.uid,
                seq,
                row.time_us,
                row.body_length,
                head,
            )
            raw = header.pack()
            read_header(raw)
            head = crypto.fragment_head(raw, row.body_digest)
            place = f"fragment {entry['track']}/{seq}"
            if not crypto.signature_is_good(self.host_key, crypto.FRAGMENT_PREFIX + head, row.signature):
                raise Bad("index.signature", f"{place} is not signed by the host")
            self._clear_body(row, raw, header, place)
            chunk.headers.append(header)
        first, last = chunk.headers[0], chunk.headers[-1]
        sums = (first.time_us, last.time_us, sum(f.plain for f in chunk.headers), head.hex())
        if sums != (entry["first_us"], entry["last_us"], entry["plain"], entry["last_head"]):
            raise Bad("index.chain", f"the fragments of chunk {entry['index']} do not make its entry")
        known = (entry["header"], entry["body_digest"], entry["signature"])
        if known != (last.pack().hex(), chunk.rows[-1].body_digest.hex(), chunk.rows[-1].signature.hex()):
            raise Bad("index.chain", f"the last fragment of chunk {entry['index']} is another")

    def _clear_body(self, row: FragmentRow, raw: bytes, header: Header, place: str) -> None:
        if row.kind == PART:
            listed = [p for p in self.m["parts"] if (p["track"], p["part"]) == (header.track, header.part)]
            whole = base64.b64encode(raw + row.body + row.signature).decode()
            if not listed or listed[0]["fragment"] != whole:
                raise Bad("index.part", f"{place} is not the part the manifest lists")
            settings, enc, ciphertext = split_part_body(row.body)
            PART_SETTINGS(parse_canonical(settings, "part.settings"), "part")
            key = self.intake.open(enc, ciphertext, b"lucid v1 part" + raw + settings)
            self.part_keys[(header.track, header.part)] = key
        elif row.kind == FINAL and raw + row.body + row.signature != base64.b64decode(self.m["ending"]):
            raise Bad("index.final", f"{place} is not the ending")
        elif row.kind > DATA and row.body:
            body = read_body(row.kind, row.body)
            if row.kind == GAP:
                lost_s = max(0, body["to_us"] - body["from_us"]) / 1e6
                self.report.note("host.gap", f"{place}: the host lost {lost_s:.1f} s ({body['reason']})")

    def _key_frames(self, chunks: list[ChunkRows]) -> list[bytes]:
        rows = []
        for chunk in chunks:
            offset = chunk.entry["offset"]
            for header in chunk.headers:
                if header.flags & 1:
                    rows.append(pack_key_frame(header.track, header.time_us, chunk.entry["index"], offset))
                offset += header.plain
        return rows

    def _chunk(self, chunk: ChunkRows) -> None:
        if is_lost(chunk.entry):
            return
        plain = open_chunk(self.dek, self.read(chunk.entry["index"]))
        key = self.part_keys.get((chunk.entry["track"], chunk.entry["part"]))
        if key is None:
            raise Bad("part.key", "the part key is unknown")
        at = 0
        for header, row in zip(chunk.headers, chunk.rows, strict=True):
            if header.kind == DATA:
                piece = plain[at : at + header.plain]
                body = crypto.seal_data(key, header.pack(), header.track, header.seq, piece)
                if crypto.h(body) != row.body_digest:
                    raise Bad(
                        "chunk.content", f"fragment {header.track}/{header.seq} is not what the host sealed"
                    )
                at += header.plain
        if at != len(plain):
            raise Bad("chunk.content", "the chunk holds bytes of no fragment")

    def _cuts(self, chunks: list[ChunkRows]) -> None:
        size, seconds = self.m["settings"]["chunk_bytes"], self.m["settings"]["chunk_max_seconds"]
        final_index = next((c.entry["index"] for c in chunks if c.headers[-1].kind == FINAL), None)
        for track in (0, 1):
            now, last_index = None, -1
            for chunk in (c for c in chunks if c.entry["track"] == track):
                index = chunk.entry["index"]
                place = f"chunk {index:010}"
                for position, header in enumerate(chunk.headers):
                    why = why_closed(now, header, size, seconds) if now is not None else "first"
                    if position == 0:
                        swept = track > 0 and final_index is not None and last_index < final_index < index
                        self.report.need(
                            bool(why) or swept, "chunk.cut", place, "the chunk before it was cut early"
                        )
                        now = OpenChunk(header.time_us, header.seq, header.part)
                    else:
                        self.report.need(not why, "chunk.cut", place, f"it goes on after a border ({why})")
                    assert now is not None
                    now.add(header)
                last_index = index

    def plain_of(self, track: int) -> list[int]:
        """Indices of the stored chunks of one track, in order, for an export."""
        return [c["index"] for c in self.m["chunks"] if c["track"] == track and not is_lost(c)]
