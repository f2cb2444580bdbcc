"""Measures the scrub over very many small chunks: its rate, CPU and disk, without and with the bound.

1. The chunks are files with random bytes, and a stream has their `stored` events. The scrub only compares
   digests: nothing needs to open them.
2. The checks are those of a session without a seal, in this process, from files to findings.
3. Afterwards the pipeline is measured alone, and beside a scrub at the bound of the settings.
"""

import asyncio
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from handlers.lifecycle.decide import decide
from handlers.lifecycle.session import Session, evolve, initial
from schemas import subjects
from schemas.errors import EvidenceFalse
from schemas.events.chunk import Stored
from schemas.format import file_names
from schemas.format.digest import h
from schemas.format.index import Entry
from schemas.ports import Jet
from streams.bench import pipeline
from streams.bench.contender import Task
from streams.bench.finished import DIGEST, FinishedHost
from streams.event_store.recordings import Recordings
from streams.event_store.session_log import SessionLog
from streams.evidence.scrub_pace import ScrubPace
from streams.evidence.session_proof import Fault, SessionProof
from streams.keys.keystore import KeyStore
from streams.roles.drivers import Installation, connected
from streams.scheduling.threads import Threads, be_nice

CHUNK_BYTES = 4096
SESSION = "bench-scrub"
AT_ONCE = 500
UNBOUND = 1e15
OFF_MB_PER_S = 20
"""The bound that is measured where the scrub is off."""
Figures = dict[str, Any]


async def measure(task: Task, count: int, note: Callable[[str], None]) -> Figures:
    """The figures of both rates, and of the pipeline alone and beside a scrub."""
    async with pipeline.system(_beside(task, "scrub")):
        pass  # its keys are made, and its streams
    here = Installation.here({**task.environment, "LUCID_DATA": str(task.folder / "scrub" / "data")})
    bound = (task.settings.scrub_mb_per_s or OFF_MB_PER_S) * 1e6
    server = here.unsynced_server()
    await server.start()
    try:
        async with connected(server.url, "lucid-bench") as jet:
            session = await _fill(here, jet, count)
            note(f"{count:,} chunks of {CHUNK_BYTES:,} bytes are there")
            figures: Figures = {"chunks": count, "chunk_bytes": CHUNK_BYTES, "bound_bytes_per_s": bound}
            figures["unbound"] = await _scrubbed(here, jet, session, UNBOUND)
            figures["bound"] = await _scrubbed(here, jet, session, bound)
            alone = await pipeline.measure(_beside(task, "alone"))
            scrubbing = asyncio.create_task(_for_ever(here, jet, session, bound))
            try:
                beside = await pipeline.measure(_beside(task, "beside"))
            finally:
                scrubbing.cancel()
            await asyncio.gather(scrubbing, return_exceptions=True)
    finally:
        await server.stop()
    seconds = {"alone_s": alone.seconds, "beside_s": beside.seconds}
    return {**figures, "pipeline": {**seconds, "ratio": beside.seconds / alone.seconds}}


def _beside(task: Task, name: str) -> Task:
    folder = task.folder / name
    folder.mkdir()
    return replace(task, folder=folder)


async def _fill(here: Installation, jet: Jet, count: int) -> Session:
    """Make the files and the events of a session; it stands in no log."""
    create = FinishedHost("bench-host").create(SESSION, time.time_ns() // 1000)
    (event,) = decide(initial(SESSION), create)
    session = evolve(initial(SESSION), event, 1)
    folder = here.data.chunks
    entries = await asyncio.to_thread(_files, folder, session.uid, count)
    subject = subjects.chunk(subjects.STORED, SESSION)
    for start in range(0, count, AT_ONCE):
        some = [_stored(session, entry) for entry in entries[start : start + AT_ONCE]]
        await asyncio.gather(*(jet.publish(subject, body) for body in some))
    return session


def _stored(session: Session, entry: Entry) -> bytes:
    event = Stored(
        session=SESSION,
        uid=session.uid,
        index=entry.index,
        recorded=1,
        entry=entry.pack(),
        leaf=DIGEST,
        build="bench",
        codec=0,
    )
    return event.model_dump_json().encode()


def _files(folder: Path, uid: bytes, count: int) -> list[Entry]:
    (folder / uid.hex()).mkdir()
    entries = []
    for index in range(count):
        raw = os.urandom(CHUNK_BYTES)
        (folder / file_names.stored_chunk(uid, index)).write_bytes(raw)
        entries.append(
            Entry(
                index=index, track=0, part=0, offset=index * CHUNK_BYTES, plain=CHUNK_BYTES,
                sealed=CHUNK_BYTES, first_us=index, last_us=index, first_seq=index, last_seq=index,
                prev_head=DIGEST, last_head=DIGEST, digest=h(raw),
            )
        )  # fmt: skip
    os.sync()
    return entries


async def _scrubbed(here: Installation, jet: Jet, session: Session, rate: float) -> Figures:
    """Check every chunk once."""
    disk, threads, pace = ThreadPoolExecutor(1, "lucid-scrub", be_nice), Threads(), ScrubPace(jet, rate)
    keys, recordings = KeyStore(here.key_files, here.keyring), await Recordings.open(jet)
    proof = SessionProof(SessionLog(jet), recordings, here.evidence, keys, pace, threads, disk, _intend)
    files = size = 0
    began_s, cpu_s, read = time.monotonic(), time.process_time(), _io()
    try:
        async for checked in proof.running(session):
            if checked.fault is not None:
                raise EvidenceFalse(checked.fault.text, code="bench.false")
            files, size = files + checked.files, size + checked.size
    finally:
        disk.shutdown(wait=True, cancel_futures=True)
        threads.shut()
    seconds, cpu_s = time.monotonic() - began_s, time.process_time() - cpu_s
    after = _io()
    return {
        "seconds": seconds,
        "chunks_per_s": files / seconds,
        "mb_per_s": size / 1e6 / seconds,
        "cpu_s_per_gb": cpu_s / (size / 1e9),
        "cpu_s_per_1000": cpu_s / files * 1000,
        "disk_read_bytes": after["read_bytes"] - read["read_bytes"],
        "disk_written_bytes": after["write_bytes"] - read["write_bytes"],
    }


async def _for_ever(here: Installation, jet: Jet, session: Session, rate: float) -> None:
    while True:
        await _scrubbed(here, jet, session, rate)


async def _intend(session: str, fault: Fault) -> None:
    raise EvidenceFalse(f"{session}: {fault.text}", code="bench.false")


def _io() -> dict[str, int]:
    """The kernel's counts of this process: bytes from and to the disk."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return {name: int(number) for name, number in (line.split(": ") for line in lines)}


def lines(result: dict[str, Any]) -> list[str]:
    """The table."""
    figures = result["results"]
    found = [
        f"{figures['chunks']:,} chunks of {figures['chunk_bytes']:,} bytes",
        f"{'':<22}{'s':>8}{'chunks/s':>10}{'MB/s':>8}{'CPU-s/GB':>10}{'CPU-s/1000':>12}{'MB read':>9}",
    ]
    for name in ("unbound", "bound"):
        row = figures[name]
        text = name if name == "unbound" else f"{figures['bound_bytes_per_s'] / 1e6:g} MB/s at most"
        found.append(
            f"{text:<22}{row['seconds']:>8.1f}{row['chunks_per_s']:>10,.0f}{row['mb_per_s']:>8.1f}"
            f"{row['cpu_s_per_gb']:>10.1f}{row['cpu_s_per_1000']:>12.3f}{row['disk_read_bytes'] / 1e6:>9.0f}"
        )
    row = figures["pipeline"]
    return [
        *found,
        f"pipeline: {row['alone_s']:.1f} s alone, {row['beside_s']:.1f} s beside a scrub: {row['ratio']:.3f}",
    ]
