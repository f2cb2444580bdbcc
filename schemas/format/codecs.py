"""Which levels each codec takes, what each level costs, and the level of a new session that names none.

No byte of evidence depends on this: a session's own level is frozen when it is created.
"""

from schemas.format.chunk_header import Codec

LEVELS = {
    Codec.NONE: range(1),
    Codec.ZSTD: range(1, 23),
    Codec.LZ4: range(13),
    Codec.BROTLI: range(12),
    Codec.GZIP: range(1, 10),
}
DEFAULT_LEVELS = {Codec.NONE: 0, Codec.ZSTD: 3, Codec.LZ4: 0, Codec.BROTLI: 5, Codec.GZIP: 6}
SECONDS_PER_MIB: dict[Codec, dict[int, float]] = {
    Codec.NONE: {22: 0.0},
    Codec.ZSTD: {3: 0.005, 6: 0.015, 9: 0.02, 12: 0.05, 15: 0.4, 18: 0.55, 22: 0.65},
    Codec.LZ4: {2: 0.005, 3: 0.02, 6: 0.06, 10: 0.3, 11: 0.6, 12: 4.0},
    Codec.BROTLI: {3: 0.01, 4: 0.03, 6: 0.05, 7: 0.06, 8: 0.15, 9: 0.25, 10: 1.0, 11: 2.0},
    Codec.GZIP: {3: 0.02, 5: 0.03, 6: 0.07, 7: 0.12, 8: 0.7, 9: 2.4},
}
"""CPU seconds by level, for each level up to the one that is named: measured (one core, 4 MiB), the
worst of prose, source code, machine code, base64, repetitions, and noise of two letters, which costs most."""
MIB = 1 << 20


def codec_seconds(codec: Codec, level: int, plain_bytes: int) -> float:
    """How long a chunk of so many plain bytes may take."""
    for up_to, seconds in SECONDS_PER_MIB[codec].items():
        if level <= up_to:
            return seconds * plain_bytes / MIB
    raise ValueError(f"{codec.name} has no level {level}")
