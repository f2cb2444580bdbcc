"""Measures POST /chunks/process of a running system against the pure functions, in one run.

    python -m tests.speed.chunk_service [SECONDS]

1. The service runs in processes of its own (`lucid up`); clients send from this one, over the same cores.
2. The floor is the same functions in this process, with as many threads as there are cores.
"""

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx

from handlers.crypto.keys import SessionKeys
from handlers.stages.standalone import place, process
from schemas.config.settings import Settings

CORES = os.cpu_count() or 1
CLIENTS = 4
SIZES = {"1 kB": 1 << 10, "100 kB": 100 << 10, "1 MiB": 1 << 20, "10 MiB": 10 << 20}
MOST_AT_ONCE = 64
UID, KEY = bytes(16), bytes(32)


def data(size: int) -> bytes:
    """Half of it compressible."""
    noise = random.Random(size).randbytes(size)
    return b"".join(noise[at : at + 512] + bytes(512) for at in range(0, size, 1024))[:size]


def rate(call: Callable[[], object], threads: int, seconds: float) -> float:
    """How often a second so many threads call it."""
    end_s = time.monotonic() + seconds
    began_s = time.monotonic()

    def repeat() -> int:
        done = 0
        while time.monotonic() < end_s:
            call()
            done += 1
        return done

    with ThreadPoolExecutor(threads) as pool:
        done = sum(pool.map(lambda _: repeat(), range(threads)))
    return done / (time.monotonic() - began_s)


def main(seconds: float) -> None:
    with tempfile.TemporaryDirectory(prefix="lucid-bench-") as folder:
        environment = {**os.environ, "LUCID_DATA": folder, "SESSION_API_PORT": "0"}
        command = [sys.executable, "-P", "-m", "streams.cli.main", "up", "--json"]
        system = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        try:
            assert system.stdout is not None
            compare(json.loads(system.stdout.readline()), seconds)
        finally:
            system.terminate()
            system.wait(60)


def compare(told: dict[str, str], seconds: float) -> None:
    """told: the first line of `lucid up`."""
    headers = {"Content-Type": "application/octet-stream", "X-Chunk-Key": "A" * 43 + "="}
    if told.get("token_file"):
        headers["Authorization"] = f"Bearer {Path(told['token_file']).read_text().strip()}"
    settings, keys = Settings().session(), SessionKeys(KEY)
    limits = httpx.Limits(max_connections=MOST_AT_ONCE)
    with httpx.Client(base_url=told["api_url"], headers=headers, limits=limits, timeout=60) as client:
        print(f"{CLIENTS} clients, {CORES} cores, zstd 3; chunks a second, MB/s, and the ratio of the two")
        for name, size in SIZES.items():
            plain = data(size)

            def pure(plain: bytes = plain) -> object:
                return process(plain, UID, place(), settings, keys)

            def served(plain: bytes = plain) -> object:
                return client.post("/chunks/process", content=plain).raise_for_status()

            floor, over_http = rate(pure, CORES, seconds), rate(served, CLIENTS, seconds)
            print(
                f"{name:>8}  pure {floor:8,.0f}/s {floor * size / 1e6:7,.0f} MB/s   "
                f"served {over_http:7,.0f}/s {over_http * size / 1e6:6,.0f} MB/s   {over_http / floor:.2f}",
                flush=True,
            )


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 5.0)
