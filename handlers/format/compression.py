"""Compresses a chunk's plain bytes, and decompresses strictly within bounds (format.md §6).

1. The same plain bytes, codec, level and build give the same payload: one API per codec, one thread, no time
   in a header. `build` names the library, because another one may give other bytes.
2. Small input, input that a probe finds incompressible, and input that grows are stored raw (codec NONE).
3. Decompression accepts one frame or member and no byte after it, at most the promised plain length, and no
   window above 16 MiB.
"""

import threading
import zlib
from functools import cache
from typing import NamedTuple, NoReturn

import brotli
import lz4
import lz4.frame
import zstandard

from schemas.errors import EvidenceFalse, Misuse
from schemas.format.chunk_header import LEVELS, MAX_PLAIN, MIB, Codec, codec_seconds
from schemas.format.digest import Buffer

PROBE_PIECES = 16
PROBE_PIECE_BYTES = 16 * 1024
PROBE_FROM_BYTES = 4 * PROBE_PIECES * PROBE_PIECE_BYTES
"""Shorter input is not probed: the probe would cost much of the gain."""
PROBE_LEVEL = 1
RAW_ABOVE = 0.95
MAX_WINDOW = 16 << 20
RAW_BUILD = "none"
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_LZ4_MAGIC = b"\x04\x22\x4d\x18"
_GZIP_WINDOW = 31
"""zlib's code for a 32 KiB window and a gzip header."""
_UNKNOWN_SIZE = 2**64 - 1


class Packed(NamedTuple):
    codec: Codec
    """The codec in use; NONE: the requested codec did not pay."""
    payload: Buffer
    build: str


class _PerThread(threading.local):
    """zstd contexts are not thread-safe: each thread has one compressor per level and one decompressor."""

    def __init__(self) -> None:
        self.by_level: dict[int, zstandard.ZstdCompressor] = {}
        self.opener = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW)

    def compress(self, plain: Buffer, level: int) -> bytes:
        if level not in self.by_level:
            self.by_level[level] = zstandard.ZstdCompressor(level=level, threads=0)
        return self.by_level[level].compress(plain)


_zstd = _PerThread()


def compress(plain: Buffer, codec: Codec, level: int, threshold: int) -> Packed:
    """Return the payload of `plain`. threshold: fewer plain bytes are stored raw.

    Raises Misuse (compression.level).
    """
    codec = Codec(codec)
    check_level(codec, level)
    if codec is Codec.NONE or len(plain) < threshold or not _pays(plain):
        return Packed(Codec.NONE, plain, RAW_BUILD)
    payload = _compress(plain, codec, level)
    if len(payload) > len(plain):
        return Packed(Codec.NONE, plain, RAW_BUILD)
    return Packed(codec, payload, build(codec))


def check_level(codec: Codec, level: int) -> int:
    """Return the level unchanged. Codec NONE ignores it. Raises Misuse (compression.level)."""
    allowed = LEVELS[codec]
    if codec is not Codec.NONE and level not in allowed:
        raise Misuse(
            f"level {level} is not allowed for {codec.name.lower()}: {allowed[0]} to {allowed[-1]}",
            code="compression.level",
        )
    return level


def check_cost(codec: Codec, level: int, chunk_bytes: int, allowed_s: float) -> None:
    """Return if a chunk takes at most `allowed_s` CPU seconds.

    Raises Misuse (compression.level: no such level; compression.cost: too slow).
    """
    check_level(codec, level)
    seconds = codec_seconds(codec, level, chunk_bytes)
    if seconds <= allowed_s:
        return
    cheap = [one for one in LEVELS[codec] if codec_seconds(codec, one, chunk_bytes) <= allowed_s]
    fits = int(chunk_bytes * allowed_s / seconds / MIB * 4) / 4
    hints = [f"COMPRESSION_LEVEL up to {max(cheap)}"] if cheap else []
    hints += [f"CHUNK_SIZE_MB up to {fits:g}"] if fits else []
    raise Misuse(
        f"{codec.name.lower()} {level} may take {seconds:.0f} s for a chunk of {chunk_bytes / MIB:g} MiB "
        f"(allowed: {allowed_s:g} s)",
        code="compression.cost",
        hint=f"take {' or '.join(hints) or 'another codec'}; the platform may raise COMPRESSION_MAX_SECONDS",
    )


@cache
def build(codec: Codec) -> str:
    """Return name and version of the codec's library."""
    match codec:
        case Codec.NONE:
            return RAW_BUILD
        case Codec.ZSTD:
            return "zstd-" + ".".join(str(n) for n in zstandard.ZSTD_VERSION)
        case Codec.LZ4:
            return f"lz4-{lz4.library_version_string()}"
        case Codec.BROTLI:
            return f"brotli-{brotli.__version__}"
        case Codec.GZIP:
            return f"zlib-{zlib.ZLIB_RUNTIME_VERSION}"


def decompress(codec: Codec, payload: Buffer, plain_length: int) -> bytes:
    """Return exactly `plain_length` bytes. Raises EvidenceFalse (chunk.payload)."""
    codec = Codec(codec)
    if plain_length > MAX_PLAIN:
        _refuse(codec, f"plain length {plain_length} is above {MAX_PLAIN}")
    try:
        plain = _decompress(codec, payload, plain_length)
    except (zstandard.ZstdError, zlib.error, brotli.error, RuntimeError, EOFError) as error:
        _refuse(codec, str(error)[:200])
    if len(plain) != plain_length:
        _refuse(codec, f"{len(plain)} plain bytes, promised {plain_length}")
    return plain


def _pays(plain: Buffer) -> bool:
    """Whether pieces at even distances, the end included, shrink enough."""
    if len(plain) < PROBE_FROM_BYTES:
        return True
    view = memoryview(plain)
    last = len(plain) - PROBE_PIECE_BYTES
    starts = (last * i // (PROBE_PIECES - 1) for i in range(PROBE_PIECES))
    pieces = b"".join(view[at : at + PROBE_PIECE_BYTES] for at in starts)
    return len(_zstd.compress(pieces, PROBE_LEVEL)) <= RAW_ABOVE * len(pieces)


def _compress(plain: Buffer, codec: Codec, level: int) -> bytes:
    match codec:
        case Codec.NONE:
            return bytes(plain)
        case Codec.ZSTD:
            return _zstd.compress(plain, level)
        case Codec.LZ4:
            made: bytes = lz4.frame.compress(
                plain, compression_level=level, block_size=lz4.frame.BLOCKSIZE_MAX4MB, store_size=True
            )
            return made
        case Codec.BROTLI:
            packed: bytes = brotli.compress(plain, quality=level, lgwin=24)
            return packed
        case Codec.GZIP:
            member = zlib.compressobj(level, zlib.DEFLATED, _GZIP_WINDOW)
            return member.compress(plain) + member.flush()


def _decompress(codec: Codec, payload: Buffer, limit: int) -> bytes:
    match codec:
        case Codec.NONE:
            return bytes(payload)
        case Codec.ZSTD:
            return _unzstd(payload, limit)
        case Codec.LZ4:
            if bytes(payload[:4]) != _LZ4_MAGIC:
                _refuse(codec, "not an lz4 frame")
            frame = lz4.frame.LZ4FrameDecompressor()
            plain: bytes = frame.decompress(payload, max_length=limit + 1)
            _whole(codec, frame.eof, bool(frame.unused_data))
            return plain
        case Codec.BROTLI:
            stream = brotli.Decompressor()
            plain = stream.process(payload, output_buffer_limit=limit + 1)
            _whole(codec, stream.is_finished(), False)
            return plain
        case Codec.GZIP:
            member = zlib.decompressobj(_GZIP_WINDOW)
            plain = member.decompress(payload, limit + 1)
            _whole(codec, member.eof, bool(member.unused_data))
            return plain


def _unzstd(payload: Buffer, limit: int) -> bytes:
    if bytes(payload[:4]) != _ZSTD_MAGIC:
        _refuse(Codec.ZSTD, "not a zstd frame")
    frame = zstandard.get_frame_parameters(payload)
    if frame.dict_id or frame.window_size > MAX_WINDOW:
        _refuse(Codec.ZSTD, f"dictionary {frame.dict_id}, window {frame.window_size}")
    if frame.content_size not in (limit, _UNKNOWN_SIZE):
        _refuse(Codec.ZSTD, f"frame says {frame.content_size} plain bytes, promised {limit}")
    return _zstd.opener.decompress(payload, max_output_size=max(limit, 1), allow_extra_data=False)


def _whole(codec: Codec, ended: bool, more: bool) -> None:
    if not ended or more:
        _refuse(codec, "bytes after its end" if more else "it does not end where it should")


def _refuse(codec: Codec, message: str) -> NoReturn:
    raise EvidenceFalse(f"{codec.name.lower()} payload is false: {message}", code="chunk.payload") from None
