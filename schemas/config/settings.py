"""Every setting of a process: its variable, its kind, its default, its effect; declared once, on its field.

1. `VARIABLES` is read off the fields. `lucid config`, its template and docs/settings.md are made from it.
2. Nothing here reads the environment (infra.config.load does). Text comes in; values or Misuse
   (config.<field>) come out.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from schemas.config.access import AccessSettings
from schemas.config.values import (
    FOLDER,
    NATS_URLS,
    SECRET,
    YES_OR_NO,
    choice,
    duration,
    mebibytes,
    one_of,
    whole,
    whole_seconds,
)
from schemas.config.variable import Variable, setting
from schemas.errors import Misuse
from schemas.events.session import SessionSettings
from schemas.format.chunk_header import DEFAULT_LEVELS, LEVELS, Codec
from schemas.subjects import PARTITIONS, SHARD_COUNTS

STAGES = ("RECORDER", "CHUNK", "COMPRESSOR", "ENCRYPTOR", "MERKLE", "STORAGE")
CODECS = {codec.name.lower(): codec for codec in Codec}
SUITES = {"xchacha20-poly1305": 1, "aes-256-gcm": 2}
DAY_S = 86_400
YEAR_S = 366 * DAY_S
DEFAULT_SHARDS = 1
"""Of a new installation. With quick syncs (0.1 to 0.4 ms) four shards carried fewer sessions on two cores."""
DEFAULT_MEMORY_MIB = 450
"""Of nats-server. 380 costs 10.9 instead of 6.8 CPU-s/GB of a fast upload; no bound costs 1.7 GB."""
ENDLESS = "accepted, without effect: recorder waits out every outage"
"""A recording cannot be given up: the recorder reads its stream until it succeeds."""


@dataclass(frozen=True, slots=True)
class StageLimits:
    """The limits of one stage."""

    workers: int = setting(0, "WORKERS", whole(0, 256), "jobs of {} at once; 0: one a core")
    slots: int = setting(32, "BUFFER_SIZE", whole(1, 10_000), "messages {} holds unacknowledged")
    timeout_s: float = setting(30, "TIMEOUT", duration(1, 3600), "how long one job of {} may take")
    retries: int = setting(5, "RETRY_COUNT", whole(0, 1000), "how often {} tries a job again")
    memory_bytes: int = setting(
        64 << 20, "MAX_MEMORY_MB", mebibytes(16, 1 << 20), "bytes of chunks {} may hold"
    )


DEFAULT_LIMITS = {stage: StageLimits() for stage in STAGES} | {
    "RECORDER": StageLimits(workers=2, memory_bytes=128 << 20),
    "ENCRYPTOR": StageLimits(workers=4),
}


def _each_codec(values: dict[Codec, str]) -> str:
    return ", ".join(f"{name} {values[codec]}" for name, codec in CODECS.items() if codec is not Codec.NONE)


LEVEL_EFFECT = (
    f"its level ({_each_codec({codec: f'{of[0]}-{of[-1]}' for codec, of in LEVELS.items()})}); "
    f"unset: {_each_codec({codec: str(level) for codec, level in DEFAULT_LEVELS.items()})}"
)


@dataclass(frozen=True, slots=True)
class Settings(AccessSettings):
    """The settings of one process, checked."""

    environment: str = setting(
        "development", "LUCID_ENV", choice("development", "production"), "production forbids easy defaults"
    )
    data: Path | None = setting(
        None,
        "LUCID_DATA",
        FOLDER,
        "where everything lies; unset: your folder for user data, /app/data in a container",
    )
    nats_url: str = setting(
        "",
        "NATS_URL",
        NATS_URLS,
        "a NATS that is not ours (tls:// trusts the system's certificates, or those in SSL_CERT_FILE); "
        "unset: the server that `lucid up` runs",
        in_repr=False,
    )
    nats_storage_bytes: int = setting(
        0,
        "NATS_MAX_STORAGE_MB",
        mebibytes(64, 1 << 30),
        "what all streams together may take on a NATS that is not ours; unset: 64 GiB, or as they are",
    )
    nats_memory_mib: int = setting(
        DEFAULT_MEMORY_MIB, "NATS_MEMORY_MB", whole(64, 1 << 20), "GOMEMLIMIT of the server that we run"
    )
    shards: int = setting(
        0,
        "SHARDS",
        one_of(0, *SHARD_COUNTS),
        "how many streams divide the recordings and their space, fixed at the first start; with more, a disk "
        f"that syncs files side by side carries more sessions; 0: those that there are, "
        f"{DEFAULT_SHARDS} for a new installation",
    )
    worker_processes: int = setting(
        1,
        "WORKER_PROCESSES",
        whole(1, PARTITIONS),
        "how many workers `lucid up` runs; they share the sessions, and each has the stages' memory limits",
    )
    api_port: int = setting(
        8113,
        "SESSION_API_PORT",
        whole(0, 65_535),
        "the port of session-api, and of all roles in `lucid up`, which takes a free one if this is taken",
    )
    wait_start_s: float | None = setting(
        None,
        "WAIT_START",
        duration(0, DAY_S),
        "how long a command waits for a system to start (`--wait-start` wins); "
        "unset: 60s where one is starting or NATS_URL names one, else not at all",
    )
    chunks_path: Path | None = setting(
        None,
        "CHUNK_STORAGE_PATH",
        FOLDER,
        "where sealed chunks lie; unset: below LUCID_DATA, as all paths",
        "LUCID_CHUNK_STORE_PATH",
        "LUCID_CHUNK_OUTPUT_PATH",
    )
    manifests_path: Path | None = setting(None, "LUCID_MANIFEST_PATH", FOLDER, "where manifests lie")
    nats_path: Path | None = setting(
        None,
        "SESSION_STORAGE_PATH",
        FOLDER,
        "where recordings and logs of sessions lie (the streams)",
        "LUCID_STORAGE_PATH",
        "LUCID_RECORDING_PATH",
    )
    temp_path: Path | None = setting(
        None,
        "TEMP_STORAGE_PATH",
        FOLDER,
        "where scratch files lie: a disk, not memory",
        "LUCID_COMPRESSION_PATH",
    )
    spill_bytes: int = setting(
        4 << 30,
        "RECORDER_MAX_SPILL_MB",
        mebibytes(0, 1 << 20),
        "bytes of open chunks beyond RECORDER_MAX_MEMORY_MB that lie as scratch on the disk, sealed by their "
        "hosts; never more than a quarter of the free disk; 0: none, they are read from the stream again",
    )
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
    suite: str = setting(
        "xchacha20-poly1305", "LUCID_ENCRYPTION_SUITE", choice(*SUITES), "cipher of new sessions"
    )
    encryption_key: str = setting(
        "",
        "ENCRYPTION_KEY",
        SECRET,
        "the master key; unset: one is made in the data folder",
        secret=True,
        in_repr=False,
    )
    keys_path: Path | None = setting(
        None, "KEYS_PATH", FOLDER, "where keys lie: a disk of this machine, best one that is not flash"
    )
    keys_mirror: Path | None = setting(
        None, "LUCID_KEYS_MIRROR", FOLDER, "a second folder with all keys, on another disk; unset: none"
    )
    keys_copy_max_age_s: float = setting(
        7 * DAY_S,
        "KEYS_COPY_MAX_AGE",
        duration(0, 10 * YEAR_S),
        "how old the newest copy of keys/ may be before `lucid doctor` asks for one; 0: it never asks",
    )
    key_derivation: Literal["argon2id", "pbkdf2"] = setting(
        "argon2id", "ENCRYPTION_KDF", choice("argon2id", "pbkdf2"), "how a passphrase becomes a key"
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
    max_sessions: int = setting(
        1000, "MAX_CONCURRENT_SESSIONS", whole(1, 100_000), "sessions that may run at once"
    )
    max_host_sessions: int = setting(
        250,
        "MAX_SESSIONS_PER_HOST",
        whole(1, 100_000),
        "sessions of one host that may be neither sealed nor destroyed",
    )
    log_level: str = setting(
        "INFO", "LOG_LEVEL", choice("DEBUG", "INFO", "WARNING", "ERROR"), "the least that is logged"
    )
    debug: bool = setting(False, "DEBUG", YES_OR_NO, "the same as LOG_LEVEL=DEBUG")
    stages: dict[str, StageLimits] = field(default_factory=lambda: dict(DEFAULT_LIMITS))
    origins: dict[str, str] = field(default_factory=dict)
    """By field, for each that was set: "CHUNK_SIZE_MB in the environment"."""

    def value(self, variable: Variable) -> Any:
        """Return the value of the variable's field."""
        if variable.of_stage:
            _, stage, limit = variable.field.split(".")
            return getattr(self.stages[stage], limit)
        return getattr(self, variable.field)

    def session(self) -> SessionSettings:
        """Return the settings that a new session freezes. Raises Misuse (config.level)."""
        codec = CODECS[self.codec]
        allowed = LEVELS[codec]
        level = DEFAULT_LEVELS[codec] if self.level is None else self.level
        if level not in allowed:
            raise Misuse(
                f"{self.origins.get('level', 'COMPRESSION_LEVEL')} is {level}; "
                f"allowed for {self.codec}: {allowed[0]} to {allowed[-1]}",
                code="config.level",
            )
        return SessionSettings(
            suite=SUITES[self.suite],  # type: ignore[arg-type]  # the table's numbers are the allowed ones
            codec=codec.value,
            level=level,
            chunk_bytes=self.chunk_bytes,
            chunk_max_seconds=self.chunk_max_seconds,
            threshold=self.threshold,
        )


def _declared(owner: type[Settings] | type[StageLimits]) -> Iterator[Variable]:
    for one in fields(owner):
        if "variable" in one.metadata:
            yield one.metadata["variable"]._replace(field=one.name)


def _of_stage(stage: str) -> Iterator[Variable]:
    for limit in _declared(StageLimits):
        endless = stage == "RECORDER" and limit.field in ("timeout_s", "retries")
        yield limit._replace(
            name=f"{stage}_{limit.name}",
            effect=ENDLESS if endless else limit.effect.format(stage.lower()),
            field=f"stages.{stage}.{limit.field}",
        )


VARIABLES = (*_declared(Settings), *(variable for stage in STAGES for variable in _of_stage(stage)))
