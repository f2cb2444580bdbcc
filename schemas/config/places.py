"""The settings that say where everything lies: folders, the NATS server and the MongoDB server.

Base class of `schemas.config.settings.Settings`.
"""

from dataclasses import dataclass
from pathlib import Path

from schemas.config.values import FOLDER, MONGODB_URL, NATS_URLS, duration, mebibytes, one_of, whole
from schemas.config.variable import setting
from schemas.subjects import PARTITIONS, SHARD_COUNTS

DAY_S = 86_400
YEAR_S = 366 * DAY_S
DEFAULT_SHARDS = 1
"""Of a new installation. With quick syncs (0.1 to 0.4 ms) four shards carried fewer sessions on two cores."""
DEFAULT_MEMORY_MIB = 450
"""Of nats-server. 380 costs 10.9 instead of 6.8 CPU-s/GB of a fast upload; no bound costs 1.7 GB."""


@dataclass(frozen=True)
class Folders:
    """The folders of an installation."""

    data: Path | None = setting(
        None,
        "LUCID_DATA",
        FOLDER,
        "where everything lies; unset: your folder for user data, /app/data in a container",
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


@dataclass(frozen=True)
class Servers:
    """The servers under an installation, and the processes of `lucid up`."""

    nats_url: str = setting(
        "",
        "NATS_URL",
        NATS_URLS,
        "a NATS that is not ours (tls:// trusts the system's certificates, or those in SSL_CERT_FILE); "
        "unset: the server that `lucid up` runs; required in production",
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
    mongodb_url: str = setting(
        "",
        "MONGODB_URL",
        MONGODB_URL,
        "the store of read models; unset: SQLite in the data folder; required in production",
        in_repr=False,
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
    wait_start_s: float | None = setting(
        None,
        "WAIT_START",
        duration(0, DAY_S),
        "how long a command waits for a system to start (`--wait-start` wins); "
        "unset: 60s where one is starting or NATS_URL names one, else not at all",
    )
