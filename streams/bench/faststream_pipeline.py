"""A pipeline as one would write it with FastStream in an afternoon: six hops whose messages carry the bytes.

1. The server syncs every message, so the bytes are durable at each hop. The last hop writes a file, syncs it
   and its folder, and reads it back.
2. It compresses, encrypts and hashes as we do by default: zstd 3, XChaCha20-Poly1305, BLAKE3.
3. A message holds at most 1 MiB on our server, so this pipeline's chunks are smaller: BLOCK_BYTES.
4. It orders, signs and seals nothing, and no restart of it was ever tested.
"""

import asyncio
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import zstandard
from blake3 import blake3
from faststream.nats import ConsumerConfig, JStream, NatsBroker, NatsMessage

from handlers.crypto.primitives import (
    random_bytes,
    xchacha20poly1305_decrypt,
    xchacha20poly1305_encrypt,
)
from streams.bench.actors import Cue, JsonObject
from streams.bench.baselines import through_server
from streams.bench.contender import Measure, Task, check_digest
from streams.bench.data import Source

STREAM = JStream("FASTSTREAM", subjects=["faststream.>"])
HOPS = ("record", "chunk", "compress", "encrypt", "merkle", "store")
BLOCK_BYTES = 768 << 10
AT_ONCE = 16
"""Messages that the publisher, and each hop, have under way."""
NONCE_BYTES = 24
ACK_S = 60.0
"""How long a publish waits for its ack. With the five seconds of the driver 1 GB did not come through."""

Work = Callable[[str, bytes], bytes]
"""Takes a block's index and bytes, returns the bytes for the next hop. It runs in a thread."""


async def measure(task: Task) -> Measure:
    """The FastStream pipeline on this machine."""
    folder, key, blocks = task.folder / "chunks", random_bytes(32), -(-task.source.size // BLOCK_BYTES)
    folder.mkdir()
    spec = {"store": str(folder), "key": key.hex(), "blocks": blocks}
    published, done, meter = await through_server(task, publish, ("worker", work), spec)
    stored = await asyncio.to_thread(_check, folder, key, blocks, task.source)
    return Measure(done["stored_s"] - published["began_s"], blocks, stored, meter.used, meter.others)


async def publish(cue: Cue, spec: JsonObject) -> JsonObject:
    """Actor: publish a file block by block. spec: url, source."""
    free = asyncio.Semaphore(AT_ONCE)
    async with NatsBroker(spec["url"], logger=None) as broker, asyncio.TaskGroup() as under_way:
        await cue.ready()
        began_s = time.time()

        async def send(index: int, block: bytes) -> None:
            await broker.publish(
                block,
                "faststream.record",
                headers={"index": str(index)},
                stream=STREAM.name,
                timeout=ACK_S,
            )
            free.release()

        with await asyncio.to_thread(Path(spec["source"]).open, "rb") as file:
            for index in range(spec["blocks"]):
                await free.acquire()
                under_way.create_task(send(index, file.read(BLOCK_BYTES)))
    return {"began_s": began_s}


async def work(cue: Cue, spec: JsonObject) -> JsonObject:
    """Actor: all six hops. spec: url, store, key, blocks."""
    broker, key, stored = (
        NatsBroker(spec["url"], logger=None),
        bytes.fromhex(spec["key"]),
        asyncio.Semaphore(0),
    )
    works: tuple[Work, ...] = (
        lambda _, body: body,
        lambda _, body: body,
        lambda _, body: zstandard.compress(body, 3),
        partial(_encrypt, key),
        lambda _, body: blake3(body).digest() + body,
        partial(_store, Path(spec["store"])),
    )
    for number, hop in enumerate(HOPS):
        _serve(broker, hop, works[number], HOPS[number + 1] if hop != "store" else "", stored)
    async with broker:
        await broker.start()
        await cue.ready()
        for _ in range(spec["blocks"]):
            await stored.acquire()
        return {"stored_s": time.time()}


def _serve(broker: NatsBroker, hop: str, work: Work, after: str, stored: asyncio.Semaphore) -> None:
    """Subscribe one hop. FastStream acknowledges a message when its handler returns."""
    bounds = ConsumerConfig(max_ack_pending=AT_ONCE)

    @broker.subscriber(f"faststream.{hop}", stream=STREAM, durable=hop, config=bounds, max_workers=AT_ONCE)
    async def handle(message: NatsMessage) -> None:
        index = message.headers["index"]
        made = await asyncio.to_thread(work, index, message.body)
        if after:
            await broker.publish(
                made,
                f"faststream.{after}",
                headers={"index": index},
                stream=STREAM.name,
                timeout=ACK_S,
            )
        else:
            stored.release()


def _encrypt(key: bytes, index: str, body: bytes) -> bytes:
    nonce = random_bytes(NONCE_BYTES)
    return nonce + xchacha20poly1305_encrypt(key, nonce, body, index.encode())


def _store(folder: Path, index: str, body: bytes) -> bytes:
    with (folder / index).open("wb", buffering=0) as file:
        file.write(body)
        os.fsync(file.fileno())
    of_folder = os.open(folder, os.O_RDONLY)
    os.fsync(of_folder)
    os.close(of_folder)
    if (folder / index).read_bytes() != body:
        raise OSError(f"{folder / index} was read back with other bytes")
    return b""


def _check(folder: Path, key: bytes, blocks: int, source: Source) -> int:
    """Open every block and compare them with the source; return their bytes on disk."""
    plain, on_disk = blake3(), 0
    for index in range(blocks):
        body = (folder / str(index)).read_bytes()
        digest, nonce, sealed = body[:32], body[32 : 32 + NONCE_BYTES], body[32 + NONCE_BYTES :]
        if blake3(nonce + sealed).digest() == digest:
            plain.update(
                zstandard.decompress(xchacha20poly1305_decrypt(key, nonce, sealed, str(index).encode()))
            )
        on_disk += len(body)
    check_digest(plain.digest(), source, "the FastStream pipeline")
    return on_disk
