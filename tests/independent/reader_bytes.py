"""The fixed layouts of docs/format.md: fragment, sealed chunk, entry, index rows.

1. Each layout is one `struct` string; packing stands beside reading.
2. Reading refuses what is reserved, unknown, too long or too short before anything is allocated.
3. Nothing here knows keys, files or JSON.

Source: docs/format.md §4 to §8.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import brotli
import lz4.frame
import zstandard
from reader_crypto import ZERO32, Bad, fragment_head, h

PART, DATA, TICK, GAP, PAUSE, RESUME, FINAL, END = range(1, 9)
MAX_FRAGMENT = 960 * 1024
HEADER = 96
SIGNATURE = 64
MAX_BODY = MAX_FRAGMENT - HEADER - SIGNATURE
MAX_CLEAR_BODY = 4096
MAX_PART_SETTINGS = 2926
ENC = 1120
KEY_CIPHERTEXT = 48
JSON_LIMIT = 2**53

MAX_PLAIN = 16 << 20
CHUNK_HEADER = 128
TAG = 16
SEALED_EXTRA = CHUNK_HEADER + TAG
INDEX_TRACK = 0xFFFF
MAX_INDEX_PLAIN = 8 << 20
ZSTD_MAX_WINDOW = 16 << 20

_FRAGMENT = struct.Struct("<4sBBHHHI16sQqI12s32s")
_CHUNK = struct.Struct("<4sBBBBHHI16sQQII16s24s32s")
_ENTRY = struct.Struct("<QHIQIIqqQQ32s32s32s")
_ROW2 = struct.Struct("<BHqI32s64s")
_ROW3 = struct.Struct("<HqQQ")


@dataclass(frozen=True, slots=True)
class Header:
    kind: int
    flags: int
    track: int
    part: int
    uid: bytes
    seq: int
    time_us: int
    body_length: int
    prev_head: bytes

    def pack(self) -> bytes:
        return _FRAGMENT.pack(
            b"LFRG", 1, self.kind, self.flags, self.track, 0, self.part, self.uid, self.seq, self.time_us,
            self.body_length, bytes(12), self.prev_head,
        )  # fmt: skip

    @property
    def plain(self) -> int:
        return self.body_length - TAG if self.kind == DATA else 0

    @property
    def clear(self) -> int:
        return 0 if self.kind == DATA else self.body_length


def read_header(raw: bytes) -> Header:
    """Raises Bad fragment.header."""

    def need(holds: bool, text: str) -> None:
        if not holds:
            raise Bad("fragment.header", text)

    need(len(raw) == HEADER, "a fragment header has 96 bytes")
    magic, version, kind, flags, track, zero, part, uid, seq, time_us, length, reserved, prev = (
        _FRAGMENT.unpack(raw)
    )
    need(magic == b"LFRG" and version == 1, "magic or version is unknown")
    need(PART <= kind <= END, f"kind {kind} is unknown")
    need(flags == 0 or (flags == 1 and kind == DATA), f"flags {flags} are unknown for kind {kind}")
    need(track in (0, 1) and (track == 0 or kind not in (FINAL, END)), f"track {track} is refused")
    need(zero == 0 and not any(reserved), "reserved bytes are not zero")
    need(seq < JSON_LIMIT - 1 and abs(time_us) < JSON_LIMIT, "seq or time is out of range")
    low, high = (TAG, MAX_BODY) if kind == DATA else (0, 0) if kind == TICK else (1, MAX_CLEAR_BODY)
    need(low <= length <= high, f"body length {length} is refused for kind {kind}")
    if kind == END:
        need(part == 0 and seq == 0 and prev == ZERO32, "an end has part, seq and previous head zero")
    else:
        need(seq > 0 or (kind == PART and part == 0), "a track begins with part 0 at seq 0")
    return Header(kind, flags, track, part, uid, seq, time_us, length, prev)


@dataclass(frozen=True, slots=True)
class Fragment:
    header: Header
    raw_header: bytes
    body: bytes
    signature: bytes

    @property
    def head(self) -> bytes:
        return fragment_head(self.raw_header, h(self.body))


def read_fragment(whole: bytes) -> Fragment:
    """Raises Bad fragment.header or fragment.length; the signature is not checked here."""
    if not HEADER + SIGNATURE <= len(whole) <= MAX_FRAGMENT:
        raise Bad("fragment.length", f"{len(whole)} bytes are no fragment")
    header = read_header(whole[:HEADER])
    if len(whole) != HEADER + header.body_length + SIGNATURE:
        raise Bad("fragment.length", "the body length does not fit")
    return Fragment(header, whole[:HEADER], whole[HEADER:-SIGNATURE], whole[-SIGNATURE:])


def split_part_body(body: bytes) -> tuple[bytes, bytes, bytes]:
    """Return settings, enc and ciphertext of a part fragment; raises Bad fragment.part."""
    count = int.from_bytes(body[:2], "little")
    if len(body) < 2 or not 1 <= count <= MAX_PART_SETTINGS or len(body) != 2 + count + ENC + KEY_CIPHERTEXT:
        raise Bad("fragment.part", "the part body has another length")
    return body[2 : 2 + count], body[2 + count : 2 + count + ENC], body[-KEY_CIPHERTEXT:]


@dataclass(frozen=True, slots=True)
class ChunkHeader:
    suite: int
    codec: int
    track: int
    part: int
    uid: bytes
    index: int
    offset: int
    plain: int
    payload: int
    dek_id: bytes
    nonce: bytes = bytes(24)
    commitment: bytes = ZERO32

    def pack(self) -> bytes:
        return _CHUNK.pack(
            b"LSCH", 1, self.suite, self.codec, 0, CHUNK_HEADER, self.track, self.part, self.uid, self.index,
            self.offset, self.plain, self.payload, self.dek_id, self.nonce, self.commitment,
        )  # fmt: skip


def read_chunk_header(sealed: bytes) -> ChunkHeader:
    """sealed: the whole file. Raises Bad chunk.header."""

    def need(holds: bool, text: str) -> None:
        if not holds:
            raise Bad("chunk.header", text)

    need(len(sealed) >= SEALED_EXTRA, "the file is shorter than header and tag")
    (
        magic,
        version,
        suite,
        codec,
        flags,
        length,
        track,
        part,
        uid,
        index,
        offset,
        plain,
        payload,
        key,
        nonce,
        mark,
    ) = _CHUNK.unpack(sealed[:CHUNK_HEADER])
    need(magic == b"LSCH" and version == 1, "magic or version is unknown")
    need(suite in (1, 2) and codec <= 4, "suite or codec is unknown")
    need(flags == 0 and length == CHUNK_HEADER, "flags or header length are unknown")
    need(track in (0, 1, INDEX_TRACK), f"track {track} is refused")
    need(plain <= MAX_PLAIN and payload <= plain, "plain or payload length is out of bounds")
    need(codec != 0 or payload == plain, "a raw payload has the plain length")
    need(len(sealed) == SEALED_EXTRA + payload, "the file has another length than its header says")
    need(suite == 1 or not any(nonce[12:]), "the unused nonce bytes are not zero")
    return ChunkHeader(suite, codec, track, part, uid, index, offset, plain, payload, key, nonce, mark)


def decompress(codec: int, payload: bytes, plain: int) -> bytes:
    """Return exactly `plain` bytes, or raise Bad chunk.codec; never holds more than one byte beyond."""
    try:
        out = _DECODERS[codec](payload, plain + 1)
    except (zstandard.ZstdError, brotli.error, zlib.error, RuntimeError, EOFError, ValueError):
        raise Bad("chunk.codec", "the payload does not decompress") from None
    if len(out) != plain:
        raise Bad("chunk.codec", "the payload has another length than the header says")
    return out


def _end(holds: bool) -> None:
    if not holds:
        raise ValueError


def _zstd(payload: bytes, limit: int) -> bytes:
    _end(payload[:4] == b"\x28\xb5\x2f\xfd")
    frame = zstandard.get_frame_parameters(payload)
    _end(frame.dict_id == 0 and frame.window_size <= ZSTD_MAX_WINDOW)
    at, last = zstandard.frame_header_size(payload), False
    while not last:
        block = int.from_bytes(payload[at : at + 3], "little")
        _end(at + 3 <= len(payload) and block >> 1 & 3 != 3)
        last = bool(block & 1)
        at += 3 + (1 if block >> 1 & 3 == 1 else block >> 3)
    _end(at + 4 * frame.has_checksum == len(payload))
    source = zstandard.ZstdDecompressor(max_window_size=ZSTD_MAX_WINDOW).stream_reader(payload)
    out = bytearray()
    while len(out) < limit and (piece := source.read(limit - len(out))):
        out += piece
    return bytes(out)


def _lz4(payload: bytes, limit: int) -> bytes:
    _end(payload[:4] == b"\x04\x22\x4d\x18")
    stream = lz4.frame.LZ4FrameDecompressor()
    out = stream.decompress(payload, max_length=limit)
    _end(stream.eof and not stream.unused_data)
    return out


def _gzip(payload: bytes, limit: int) -> bytes:
    stream = zlib.decompressobj(wbits=31)
    out = stream.decompress(payload, limit)
    _end(stream.eof and not stream.unused_data)
    return out


def _brotli(payload: bytes, limit: int) -> bytes:
    stream = brotli.Decompressor()
    out = stream.process(payload, output_buffer_limit=limit)
    while not stream.is_finished() and len(out) < limit:
        piece = stream.process(b"", output_buffer_limit=limit - len(out))
        _end(len(piece) > 0)
        out += piece
    _end(stream.is_finished())
    return out


_DECODERS = {0: lambda payload, _limit: payload, 1: _zstd, 2: _lz4, 3: _brotli, 4: _gzip}

ENTRY_FIELDS = (
    "index", "track", "part", "offset", "plain", "sealed", "first_us", "last_us", "first_seq", "last_seq",
    "prev_head", "last_head", "digest",
)  # fmt: skip


def pack_entry(entry: dict) -> bytes:
    """158 bytes from an entry by name; the three digests are hex, as in the manifest."""
    values = [entry[name] for name in ENTRY_FIELDS]
    return _ENTRY.pack(*values[:10], *(bytes.fromhex(value) for value in values[10:]))


def leaf(entry: dict) -> bytes:
    return h(b"\0" + pack_entry(entry))


@dataclass(frozen=True, slots=True)
class FragmentRow:
    kind: int
    flags: int
    time_us: int
    plain: int
    body_digest: bytes
    signature: bytes
    body: bytes  # empty for data

    def pack(self) -> bytes:
        fixed = _ROW2.pack(self.kind, self.flags, self.time_us, self.plain, self.body_digest, self.signature)
        return fixed + self.body

    @property
    def body_length(self) -> int:
        return self.plain + TAG if self.kind == DATA else len(self.body)


def read_fragment_row(content: bytes) -> FragmentRow:
    """Raises Bad index.row; the header it stands for is checked when it is rebuilt."""
    if len(content) < _ROW2.size:
        raise Bad("index.row", "a fragment row is too short")
    row = FragmentRow(*_ROW2.unpack(content[: _ROW2.size]), content[_ROW2.size :])
    if row.kind == DATA:
        if row.body or row.plain > MAX_BODY - TAG:
            raise Bad("index.row", "a data row carries a body, or claims more than a fragment holds")
    elif row.plain != 0 or row.body_digest != h(row.body):
        raise Bad("index.row", "a clear row has plain length 0 and the digest of its body")
    return row


def pack_key_frame(track: int, time_us: int, chunk: int, offset: int) -> bytes:
    return _ROW3.pack(track, time_us, chunk, offset)


def pack_row(kind: int, content: bytes) -> bytes:
    return struct.pack("<IB", 1 + len(content), kind) + content


def split_rows(plain: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield (type, content) of each row of one index chunk; raises Bad index.row."""
    at = 0
    while at < len(plain):
        length = int.from_bytes(plain[at : at + 4], "little")
        if len(plain) - at < 5 or not 1 <= length <= len(plain) - at - 4:
            raise Bad("index.row", "a row is longer than its chunk")
        yield plain[at + 4], plain[at + 5 : at + 4 + length]
        at += 4 + length
