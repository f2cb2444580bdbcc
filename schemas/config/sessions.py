"""The settings of new sessions, of their keys, and of the hosts that record them.

Base class of `schemas.config.settings.Settings`.
"""

from dataclasses import dataclass
from typing import Literal

from schemas.config.places import DAY_S, YEAR_S
from schemas.config.values import SECRET, choice, duration, mebibytes, whole, whole_seconds
from schemas.config.variable import setting
from schemas.format.chunk_header import DEFAULT_LEVELS, LEVELS, SUITES, Codec, SuiteName

CODECS = {codec.name.lower(): codec for codec in Codec}


def _each_codec(values: dict[Codec, str]) -> str:
    return ", ".join(f"{name} {values[codec]}" for name, codec in CODECS.items() if codec is not Codec.NONE)


LEVEL_EFFECT = (
    f"its level ({_each_codec({codec: f'{of[0]}-{of[-1]}' for codec, of in LEVELS.items()})}); "
    f"unset: {_each_codec({codec: str(level) for codec, level in DEFAULT_LEVELS.items()})}"
)


@dataclass(frozen=True)
class NewSessions:
    """The settings that a new session freezes."""

    chunk_bytes: int = setting(
        10 << 20,
        "CHUNK_SIZE_MB",
        mebibytes(0.25, 16),
        "the most plain bytes of one chunk",
        "LUCID_CHUNK_SIZE_MB",
    )
    chunk_max_seconds: int = setting(
        60, "CHUNK_MAX_SECONDS", whole_seconds(1, DAY_S), "the longest time of one chunk"
    )
    codec: str = setting(
        "zstd",
        "COMPRESSION_ALGORITHM",
        choice(*CODECS),
        "codec of new sessions",
        "LUCID_COMPRESSION_ALGORITHM",
    )
    level: int | None = setting(
        None,
        "COMPRESSION_LEVEL",
        whole(0, 22),
        LEVEL_EFFECT,
        "LUCID_COMPRESSION_LEVEL",
        "LUCID_DEFAULT_COMPRESSION_LEVEL",
    )
    threshold: int = setting(
        1024, "LUCID_COMPRESSION_THRESHOLD", whole(0, 16 << 20), "smaller chunks (bytes) are stored raw"
    )
    compression_max_s: float = setting(
        8,
        "COMPRESSION_MAX_SECONDS",
        duration(0.1, 3600),
        "the longest that codec, level and size of a host's chunks may take; others are refused (platform)",
    )
    suite: SuiteName = setting(
        next(iter(SUITES)), "LUCID_ENCRYPTION_SUITE", choice(*SUITES), "cipher of new sessions"
    )
    signature_algorithm: str = setting(
        "ed25519",
        "LUCID_MANIFEST_SIGNATURE_ALGORITHM",
        choice("ed25519"),
        "how manifests are signed; there is no other way",
    )
    hash_algorithm: str = setting(
        "blake3",
        "LUCID_MANIFEST_HASH_ALGORITHM",
        choice("blake3"),
        "digest of chunks and of the Merkle tree; there is no other one",
    )


@dataclass(frozen=True)
class MasterKey:
    """The key above all keys of sessions."""

    encryption_key: str = setting(
        "",
        "ENCRYPTION_KEY",
        SECRET,
        "the master key; unset: one is made in the data folder; required in production",
        secret=True,
        in_repr=False,
    )
    key_derivation: Literal["argon2id", "pbkdf2"] = setting(
        "argon2id", "ENCRYPTION_KDF", choice("argon2id", "pbkdf2"), "how a passphrase becomes a key"
    )


@dataclass(frozen=True)
class SessionLimits:
    """How many sessions there may be, and how long one waits for its host."""

    max_sessions: int = setting(
        1000, "MAX_CONCURRENT_SESSIONS", whole(1, 100_000), "sessions that may run at once"
    )
    max_host_sessions: int = setting(
        250,
        "MAX_SESSIONS_PER_HOST",
        whole(1, 100_000),
        "sessions of one host that may be neither sealed nor destroyed",
    )
    host_silent_max_s: float = setting(
        60, "HOST_SILENT_MAX", duration(20, DAY_S), "how long a host may send nothing, not even ticks (10 s)"
    )
    host_return_max_s: float = setting(
        7 * DAY_S, "HOST_RETURN_MAX", duration(60, YEAR_S), "how long a silent host may come back"
    )
    source_retention_s: float = setting(
        DAY_S, "SOURCE_RETENTION", duration(0, YEAR_S), "how long the source outlives its seal"
    )
    scrub_mb_per_s: int = setting(
        20,
        "SCRUB_MB_PER_S",
        whole(0, 10_000),
        "MB (10⁶) a second that the background check of stored evidence may read; 0: it is off",
    )
