"""Owns which levels each codec takes, and the level of a new session that names none.

No byte of evidence depends on this: a session's own level is frozen when it is created.
"""

from schemas.envelope import Codec

LEVELS = {
    Codec.NONE: range(1),
    Codec.ZSTD: range(1, 23),
    Codec.LZ4: range(13),
    Codec.BROTLI: range(12),
    Codec.GZIP: range(1, 10),
}
DEFAULT_LEVELS = {Codec.NONE: 0, Codec.ZSTD: 3, Codec.LZ4: 0, Codec.BROTLI: 5, Codec.GZIP: 6}
