"""The limits of one pipeline stage, as `{STAGE}_{LIMIT}` sets them, and their defaults."""

from dataclasses import dataclass

from schemas.config.values import duration, mebibytes, whole
from schemas.config.variable import WITHOUT_EFFECT, setting

STAGES = ("RECORDER", "CHUNK", "COMPRESSOR", "ENCRYPTOR", "MERKLE", "STORAGE")
ENDLESS = f"{WITHOUT_EFFECT}: recorder waits out every outage"
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
