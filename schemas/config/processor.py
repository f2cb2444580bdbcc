"""The settings of session-processor: its pool and its bounds.

Base class of `schemas.config.settings.Settings`.
"""

from dataclasses import dataclass

from schemas.config.values import byte_count, duration, mebibytes, whole
from schemas.config.variable import setting
from schemas.format.chunk_header import MAX_PLAIN


@dataclass(frozen=True)
class Processor:
    """What the pool of session-processor takes, and how large one chunk may be."""

    processor_workers: int = setting(
        10, "PROCESSOR_WORKERS", whole(1, 256), "chunks that session-processor works on at once"
    )
    processor_queue: int = setting(
        1000, "PROCESSOR_QUEUE", whole(1, 100_000), "chunks that may wait for it; more are answered 429"
    )
    processor_memory_bytes: int = setting(
        256 << 20,
        "PROCESSOR_MAX_MEMORY_MB",
        mebibytes(32, 1 << 20),
        "bytes of bodies that it holds at once; more are answered 429; work on them takes three times "
        "as much",
    )
    processor_timeout_s: float = setting(
        30,
        "PROCESSOR_TIMEOUT",
        duration(1, 3600),
        "how long a chunk may wait for a worker, and again how long it may be worked on",
    )
    max_chunk_bytes: int = setting(
        MAX_PLAIN,
        "LUCID_MAX_CHUNK_SIZE",
        byte_count(1024, MAX_PLAIN),
        "the most plain bytes of one chunk that it accepts",
    )
