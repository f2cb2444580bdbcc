"""Owns every setting: its variable, its other names, its unit, what is allowed, what it does.

1. Each variable is declared once, in VARIABLES: `lucid config`, its template and docs/settings.md are made
   from that.
2. Nothing here reads the environment: text comes in, values or Misuse (config.<field>) come out.
3. A message says which variable, what was given, where it came from and what is allowed. Secrets are never
   repeated.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

from schemas.config import values as text
from schemas.config.nats_url import BadUrl
from schemas.errors import Misuse
from schemas.events.session import SessionSettings
from schemas.format.chunk_header import DEFAULT_LEVELS, LEVELS, Codec

STAGES = ("RECORDER", "CHUNK", "COMPRESSOR", "ENCRYPTOR", "MERKLE", "STORAGE")
CODECS = {codec.name.lower(): codec for codec in Codec}
SECRET = "***"
DEFAULT_MEMORY_MIB = 450
"""GOMEMLIMIT of nats-server. 380 costs 10.9 instead of 6.8 CPU-s/GB of a fast upload, none costs 1.7 GB."""
SUITES = {"xchacha20-poly1305": 1, "aes-256-gcm": 2}


class StageLimits(NamedTuple):
    """What one stage may use. `workers` 0: as many as the machine has cores."""

    workers: int = 0
    slots: int = 32
    """Messages taken and not yet acknowledged ({STAGE}_BUFFER_SIZE)."""
    timeout_s: float = 30
    retries: int = 5
    memory_bytes: int = 64 << 20


DEFAULT_LIMITS = {
    "RECORDER": StageLimits(workers=2, memory_bytes=128 << 20),
    "ENCRYPTOR": StageLimits(workers=4),
}


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of one process, checked. Field names are those of VARIABLES."""

    environment: str = "development"
    data: Path | None = None
    """None: the platform's folder for user data."""
    nats_url: str = field(default="", repr=False)
    """Empty: the server that `lucid up` runs."""
    nats_storage_bytes: int = 0
    """What all streams together may take on a server that is not ours; 0: 64 GiB, or as they are."""
    nats_memory_mib: int = DEFAULT_MEMORY_MIB
    wait_start_s: float | None = None
    """How long a command waits for a system that starts; None: 60 s where there are signs of one."""
    chunks_path: Path | None = None
    manifests_path: Path | None = None
    nats_path: Path | None = None
    temp_path: Path | None = None
    chunk_bytes: int = 10 << 20
    chunk_max_seconds: int = 60
    codec: str = "zstd"
    level: int | None = None
    threshold: int = 1024
    compression_max_s: float = 8
    suite: str = "xchacha20-poly1305"
    encryption_key: str = field(default="", repr=False)
    key_derivation: Literal["argon2id", "pbkdf2"] = "argon2id"
    keys_path: Path | None = None
    keys_mirror: Path | None = None
    """None: there is no second folder."""
    keys_copy_max_age_s: float = 7 * 86_400
    """Doctor asks for a copy of `keys/` that is not older; 0: it asks for none."""
    host_silent_max_s: float = 60
    host_return_max_s: float = 7 * 86_400
    source_retention_s: float = 86_400
    max_sessions: int = 1000
    max_host_sessions: int = 250
    log_level: str = "INFO"
    debug: bool = False
    stages: dict[str, StageLimits] = field(default_factory=lambda: {name: _limits(name) for name in STAGES})
    origins: dict[str, str] = field(default_factory=dict)
    """Where each field that is not a default came from: "CHUNK_SIZE_MB in the environment"."""

    def value(self, variable: "Variable") -> Any:
        """What the variable's field holds."""
        if variable.stage:
            _, stage, limit = variable.field.split(".")
            return getattr(self.stages[stage], limit)
        return getattr(self, variable.field)

    def session(self) -> SessionSettings:
        """What a new session freezes. Raises Misuse (config.level)."""
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


class Variable(NamedTuple):
    """One variable. `parse` makes a value of its text or raises ValueError; `write` makes text of a value."""

    name: str
    field: str
    parse: Callable[[str], Any]
    allowed: str
    effect: str
    synonyms: tuple[str, ...] = ()
    secret: bool = False
    write: Callable[[Any], str] = str

    @property
    def stage(self) -> bool:
        """Whether it limits one stage."""
        return self.field.startswith("stages.")

    @property
    def names(self) -> tuple[str, ...]:
        return (self.name, *self.synonyms)

    def shown(self, value: Any) -> str:
        """The value as text, a secret as ***; empty: unset."""
        if value is None or value == "":
            return ""
        return SECRET if self.secret else self.write(value)

    def read(self, given: str, origin: str) -> Any:
        """Return the value of the text `given`, or raise Misuse that names `origin`."""
        try:
            return self.parse(given.strip())
        except BadUrl as error:  # its reason is safe to show, what was given is not
            raise Misuse(f"{origin}: {error}; allowed: {self.allowed}", code=f"config.{self.field}") from None
        except ValueError:
            hidden = self.secret or "@" in given  # credentials, in a URL
            shown = SECRET if hidden else repr(given[:80])
            raise Misuse(
                f"{origin} is {shown}; allowed: {self.allowed}", code=f"config.{self.field}"
            ) from None


def _limits(stage: str) -> StageLimits:
    return DEFAULT_LIMITS.get(stage, StageLimits())


def _choice(name: str, field: str, allowed: tuple[str, ...], effect: str, *synonyms: str) -> Variable:
    return Variable(name, field, text.choice(*allowed), ", ".join(allowed), effect, synonyms)


def _path(name: str, field: str, effect: str, *synonyms: str) -> Variable:
    return Variable(name, field, text.path, "a folder", effect, synonyms)


def _whole(name: str, field: str, low: int, high: int, effect: str, *synonyms: str) -> Variable:
    return Variable(name, field, text.whole(low, high), f"{low} to {high}", effect, synonyms)


def _span(name: str, field: str, low: float, high: float, effect: str) -> Variable:
    allowed = f"{text.in_seconds(low)} to {text.in_seconds(high)}, such as 30, 30s, 5m, 2h, 7d"
    return Variable(name, field, text.seconds(low, high), allowed, effect, write=text.in_seconds)


def _each_codec(told: Callable[[Codec], str]) -> str:
    return ", ".join(f"{name} {told(codec)}" for name, codec in CODECS.items() if codec is not Codec.NONE)


def _of_stage(stage: str) -> tuple[Variable, ...]:
    at = f"stages.{stage}."
    name = stage.lower()
    # record is no job that could be given up: it reads its stream until it could
    patience = "accepted, without effect: recorder waits out every outage" if stage == "RECORDER" else ""
    return (
        _whole(f"{stage}_WORKERS", at + "workers", 0, 256, f"jobs of {name} at once; 0: one a core"),
        _whole(f"{stage}_BUFFER_SIZE", at + "slots", 1, 10_000, f"messages {name} holds unacknowledged"),
        _span(
            f"{stage}_TIMEOUT", at + "timeout_s", 1, 3600, patience or f"how long one job of {name} may take"
        ),
        _whole(
            f"{stage}_RETRY_COUNT", at + "retries", 0, 1000, patience or f"how often {name} tries a job again"
        ),
        Variable(
            f"{stage}_MAX_MEMORY_MB",
            at + "memory_bytes",
            text.mebibytes(16, 1 << 20),
            "16 to 1048576 MiB",
            f"bytes of chunks {name} may hold",
            write=text.in_mebibytes,
        ),
    )


VARIABLES: tuple[Variable, ...] = (
    _choice("LUCID_ENV", "environment", ("development", "production"), "production forbids easy defaults"),
    _path(
        "LUCID_DATA",
        "data",
        "where everything lies; unset: your folder for user data, /app/data in a container",
    ),
    Variable(
        "NATS_URL",
        "nats_url",
        text.nats_url,
        "nats:// or tls://, user:password@ or token@ (%-encoded), host:port; several with commas",
        "a NATS that is not ours (tls:// trusts the system's certificates, or those in SSL_CERT_FILE); "
        "unset: the server that `lucid up` runs",
        write=text.without_credentials,
    ),
    Variable(
        "NATS_MAX_STORAGE_MB",
        "nats_storage_bytes",
        text.mebibytes(64, 1 << 30),
        "64 to 1073741824 MiB",
        "what all streams together may take on a NATS that is not ours; unset: 64 GiB, or as they are",
        write=text.in_mebibytes,
    ),
    _whole("NATS_MEMORY_MB", "nats_memory_mib", 64, 1 << 20, "GOMEMLIMIT of the server that we run"),
    Variable(
        "WAIT_START",
        "wait_start_s",
        text.seconds(0, 86_400),
        "0s to 1d, such as 30, 30s, 5m",
        "how long a command waits for a system to start (`--wait-start` wins); "
        "unset: 60s where one is starting or NATS_URL names one, else not at all",
        write=text.in_seconds,
    ),
    _path(
        "CHUNK_STORAGE_PATH",
        "chunks_path",
        "where sealed chunks lie; unset: below LUCID_DATA, as all paths",
        "LUCID_CHUNK_STORE_PATH",
        "LUCID_CHUNK_OUTPUT_PATH",
    ),
    _path("LUCID_MANIFEST_PATH", "manifests_path", "where manifests lie"),
    _path(
        "SESSION_STORAGE_PATH",
        "nats_path",
        "where recordings and logs of sessions lie (the streams)",
        "LUCID_STORAGE_PATH",
        "LUCID_RECORDING_PATH",
    ),
    _path("TEMP_STORAGE_PATH", "temp_path", "where scratch files lie", "LUCID_COMPRESSION_PATH"),
    Variable(
        "CHUNK_SIZE_MB",
        "chunk_bytes",
        text.mebibytes(0.25, 16),
        "0.25 to 16 MiB",
        "the most plain bytes of one chunk",
        ("LUCID_CHUNK_SIZE_MB",),
        write=text.in_mebibytes,
    ),
    Variable(
        "CHUNK_MAX_SECONDS",
        "chunk_max_seconds",
        text.whole_seconds(1, 86_400),
        "1 to 86400 whole seconds, such as 60, 60s, 5m",
        "the longest time of one chunk",
        write=text.in_seconds,
    ),
    _choice(
        "COMPRESSION_ALGORITHM",
        "codec",
        tuple(CODECS),
        "codec of new sessions",
        "LUCID_COMPRESSION_ALGORITHM",
    ),
    _whole(
        "COMPRESSION_LEVEL",
        "level",
        0,
        22,
        "its level ("
        + _each_codec(lambda codec: f"{LEVELS[codec][0]}-{LEVELS[codec][-1]}")
        + "); unset: "
        + _each_codec(lambda codec: str(DEFAULT_LEVELS[codec])),
        "LUCID_COMPRESSION_LEVEL",
        "LUCID_DEFAULT_COMPRESSION_LEVEL",
    ),
    _whole("LUCID_COMPRESSION_THRESHOLD", "threshold", 0, 16 << 20, "smaller chunks (bytes) are stored raw"),
    _span(
        "COMPRESSION_MAX_SECONDS",
        "compression_max_s",
        0.1,
        3600,
        "the longest that codec, level and size of a host's chunks may take; others are refused (platform)",
    ),
    _choice("LUCID_ENCRYPTION_SUITE", "suite", tuple(SUITES), "cipher of new sessions"),
    Variable(
        "ENCRYPTION_KEY",
        "encryption_key",
        text.secret,
        "32 bytes as base64, or a passphrase",
        "the master key; unset: one is made in the data folder",
        secret=True,
    ),
    _path("KEYS_PATH", "keys_path", "where keys lie: a disk of this machine, best one that is not flash"),
    _path("LUCID_KEYS_MIRROR", "keys_mirror", "a second folder with all keys, on another disk; unset: none"),
    _span(
        "KEYS_COPY_MAX_AGE",
        "keys_copy_max_age_s",
        0,
        3660 * 86_400,
        "how old the newest copy of keys/ may be before `lucid doctor` asks for one; 0: it never asks",
    ),
    _choice("ENCRYPTION_KDF", "key_derivation", ("argon2id", "pbkdf2"), "how a passphrase becomes a key"),
    _span(
        "HOST_SILENT_MAX",
        "host_silent_max_s",
        20,
        86_400,
        "how long a host may send nothing, not even ticks (10 s)",
    ),
    _span("HOST_RETURN_MAX", "host_return_max_s", 60, 366 * 86_400, "how long a silent host may come back"),
    _span("SOURCE_RETENTION", "source_retention_s", 0, 366 * 86_400, "how long the source outlives its seal"),
    _whole("MAX_CONCURRENT_SESSIONS", "max_sessions", 1, 100_000, "sessions that may run at once"),
    _whole(
        "MAX_SESSIONS_PER_HOST",
        "max_host_sessions",
        1,
        100_000,
        "sessions of one host that may be neither sealed nor destroyed",
    ),
    _choice("LOG_LEVEL", "log_level", ("DEBUG", "INFO", "WARNING", "ERROR"), "the least that is logged"),
    Variable(
        "DEBUG",
        "debug",
        text.yes_or_no,
        "true, false, 1, 0, yes, no",
        "the same as LOG_LEVEL=DEBUG",
        write=text.as_word,
    ),
    *(variable for stage in STAGES for variable in _of_stage(stage)),
)
