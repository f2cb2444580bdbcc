"""Seals and opens one chunk: header 128 ‖ ciphertext ‖ tag 16 (format.md §6).

1. The same DEK, fields and payload always give the same bytes: no clock, no random value.
2. The nonce depends on the exact payload, so two payloads under one key never share a nonce.
3. Checks are made in order: lengths, commitment, tag, nonce. No payload is returned before the last.
"""

from dataclasses import dataclass
from typing import NamedTuple, NoReturn

from blake3 import blake3

from handlers.crypto.keys import chunk_secret, dek_id, seal_keys
from handlers.crypto.primitives import open_sealed, same, seal_into
from handlers.format.compression import decompress
from schemas.buffers import aligned
from schemas.errors import EvidenceFalse
from schemas.format.chunk_header import HEADER_BYTES, MAX_PLAIN, NAMED_BYTES, ChunkHeader, Codec, Suite
from schemas.format.digest import Buffer, h
from schemas.format.file_names import copied_chunk


@dataclass(frozen=True, slots=True)
class ChunkFields:
    """The identity of a chunk and the codec of its payload."""

    uid: bytes
    index: int
    track: int
    part: int
    offset: int
    """Byte offset in the track."""
    codec: Codec
    plain: int


class OpenedChunk(NamedTuple):
    header: ChunkHeader
    payload: bytes
    """Output of the codec; `compression.decompress` returns the plain bytes."""


def seal_chunk(suite: Suite, dek: bytes, fields: ChunkFields, payload: Buffer) -> bytearray:
    """Return the sealed chunk, in one buffer of 128 + payload + 16 bytes. Pure."""
    blank = ChunkHeader(
        Suite(suite),
        Codec(fields.codec),
        fields.track,
        fields.part,
        fields.uid,
        fields.index,
        fields.offset,
        fields.plain,
        len(payload),
        dek_id(dek),
    )
    if fields.plain > MAX_PLAIN or len(payload) > fields.plain:
        raise ValueError(f"payload of {len(payload)} bytes for {fields.plain} plain bytes")
    named = blank.pack()[:NAMED_BYTES]
    keys = seal_keys(chunk_secret(dek, named))
    nonce = chunk_nonce(suite, keys.nonce_key, named, payload)
    header = named + nonce + keys.commitment
    sealed = aligned(blank.sealed)
    sealed[:HEADER_BYTES] = header
    with memoryview(sealed) as view, view[HEADER_BYTES:] as body:
        seal_into(suite, keys.key, nonce, payload, header, body)
    return sealed


def open_chunk(dek: bytes, sealed: Buffer) -> OpenedChunk:
    """Return header and payload of a sealed chunk, after every check. Pure.

    Raises EvidenceFalse: chunk.header, chunk.length, chunk.commitment (another key), chunk.tag, chunk.nonce.
    """
    header = read_header(sealed)
    if header.dek_id != dek_id(dek):
        _refuse(header, "commitment", f"sealed under key {header.dek_id.hex()}, not {dek_id(dek).hex()}")
    return open_with_secret(chunk_secret(dek, bytes(sealed[:NAMED_BYTES])), sealed)


def open_with_secret(cs: bytes, sealed: Buffer) -> OpenedChunk:
    """As `open_chunk`, with the secret of this one chunk. A wrong secret is chunk.commitment."""
    header = read_header(sealed)
    keys = seal_keys(cs)
    if not same(keys.commitment, header.commitment):
        _refuse(header, "commitment", "key commitment does not fit")
    view = memoryview(sealed)
    raw_header = bytes(view[:HEADER_BYTES])
    try:
        payload = open_sealed(header.suite, keys.key, header.nonce, view[HEADER_BYTES:], raw_header)
    except EvidenceFalse:
        _refuse(header, "tag", "authentication tag does not fit")
    if chunk_nonce(header.suite, keys.nonce_key, raw_header[:NAMED_BYTES], payload) != header.nonce:
        _refuse(header, "nonce", "nonce does not follow from these bytes")
    return OpenedChunk(header, payload)


def open_plain(dek: bytes, sealed: Buffer) -> bytes:
    """Return the plain bytes, opened and decompressed. Raises as `open_chunk`, and chunk.payload."""
    header, payload = open_chunk(dek, sealed)
    return decompress(header.codec, payload, header.plain)


def read_header(sealed: Buffer) -> ChunkHeader:
    """Return the header of a file with the right length. Raises EvidenceFalse (chunk.header, .length)."""
    header = ChunkHeader.parse(memoryview(sealed)[:HEADER_BYTES])
    if len(sealed) != header.sealed:
        _refuse(header, "length", f"file has {len(sealed)} bytes, its header says {header.sealed}")
    return header


def chunk_nonce(suite: Suite, nonce_key: bytes, named: bytes, payload: Buffer) -> bytes:
    """Return 24 bytes bound to identity and payload of the chunk; suite 2 uses 12, the rest is zero."""
    nonce = blake3(b"lucid v1 nonce" + named + h(payload), key=nonce_key).digest()[:24]
    return nonce if suite == Suite.XCHACHA20_POLY1305 else nonce[:12] + bytes(12)


def _refuse(header: ChunkHeader, why: str, message: str) -> NoReturn:
    raise EvidenceFalse(
        f"chunk {header.index} is false: {message}", code=f"chunk.{why}", place=copied_chunk(header.index)
    ) from None
