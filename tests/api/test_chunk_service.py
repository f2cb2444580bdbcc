"""session-processor and session-storage over HTTP: real server, real log, real store."""

import asyncio
import base64
import contextlib
import itertools
import json
import socket
import threading
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

import httpx
import pytest

from handlers.crypto.blind_index import BlindIndex
from handlers.crypto.keys import SessionKeys
from handlers.format.chunk import open_plain
from handlers.format.merkle_tree import (
    ConsistencyProof,
    InclusionProof,
    leaf,
    verify_consistency,
    verify_inclusion,
)
from handlers.stages.standalone import place, process
from infra.disk.data_dir import DataDir
from infra.jetstream import Jet
from schemas.access import Role
from schemas.config.settings import Settings
from schemas.format.chunk_header import DEFAULT_LEVELS, SUITE_NAMES, Codec, Suite
from schemas.format.digest import h
from streams.api import arriving, transfers
from streams.api.app import make_app
from streams.api.parts import ApiParts
from streams.api.server import bound, serve
from streams.event_store import topology
from streams.event_store.recordings import Recordings
from streams.host.upload import Uploads
from streams.pipeline.chunk_pool import ChunkPool, PoolLimits
from streams.roles.drivers import Installation
from streams.roles.http_service import api_parts
from tests.support.evidence.format_samples import DEK, UID, words
from tests.support.evidence.installed_session import InstalledSession, install
from tests.support.evidence.recorded_session import NAME, RecordedSession
from tests.support.machine.waiting import PATIENCE_S

KEY = base64.b64encode(DEK).decode()
DEAR = base64.b64encode(bytes(8 << 20)).decode()
"""Brotli's highest level takes longer for it than a chunk may take."""
OCTETS = "application/octet-stream"


@dataclass
class World:
    """An installation and its services over HTTP, in this process."""

    parts: ApiParts
    client: httpx.AsyncClient
    port: int
    data: DataDir
    jet: Jet
    bearer: str
    """The header of the administrator, for a request that is written by hand."""

    @property
    def pool(self) -> ChunkPool:
        return self.parts.chunks.pool

    async def post(self, path: str, body: Any, **more: Any) -> httpx.Response:
        return await self.client.post(path, json=body, **more)


@asynccontextmanager
async def world_of(
    jet: Jet,
    path: Path,
    limits: PoolLimits | None = None,
    *,
    roles: Collection[str] = ("processor", "storage"),
    uploads: Uploads | None = None,
) -> AsyncIterator[World]:
    await topology.declare(jet, 1 << 30)
    data = DataDir(path / "data")
    here = Installation(replace(Settings(), data=data.path))
    recordings, index = await Recordings.open(jet), BlindIndex(bytes(32), "")
    parts = api_parts(here, recordings, index, roles, 0)
    if limits is not None:
        pool = ChunkPool(limits)
        processor = replace(parts.chunks.processor, pool=pool)
        parts = replace(parts, chunks=replace(parts.chunks, pool=pool, processor=processor))
    if uploads is not None:
        parts = replace(parts, uploads=uploads)
    listening, stop = bound("127.0.0.1", 0), asyncio.Event()
    port = listening.getsockname()[1]
    serving = asyncio.create_task(serve(make_app(parts, roles), listening, stop))
    bearer = f"Bearer {here.issuer.issue('tester', [Role.ADMIN], 3600)}"
    url, headers = f"http://127.0.0.1:{port}", {"Authorization": bearer}
    async with httpx.AsyncClient(base_url=url, timeout=PATIENCE_S, headers=headers) as client:
        yield World(parts, client, port, data, jet, f"Authorization: {bearer}\r\n")
    stop.set()
    await serving


@pytest.fixture
async def world(jet: Jet, tmp_path: Path) -> AsyncIterator[World]:
    async with world_of(jet, tmp_path) as world:
        yield world


def chunk(number: int = 0, size: int = 3000) -> dict[str, Any]:
    plain = b"chunk %d " % number + words(size)
    return {"data": base64.b64encode(plain).decode(), "index": number, "key": KEY, "uid": UID.hex()}


@pytest.mark.parametrize(("codec", "suite"), [*itertools.product(Codec, Suite)])
async def test_a_chunk_over_http_becomes_the_bytes_of_the_stages(
    world: World, codec: Codec, suite: Suite
) -> None:
    """Breaks: the service makes another chunk than the pipeline, and its leaf is in no tree."""
    plain = words(100_000)
    settings = replace(Settings(), codec=codec.name.lower(), suite=SUITE_NAMES[suite]).session()
    wanted = process(plain, UID, place(7, part=1, offset=9), settings, SessionKeys(DEK))
    asked: dict[str, Any] = {"codec": codec.name.lower(), "suite": SUITE_NAMES[suite], "uid": UID.hex()}
    asked |= {"index": 7, "part": 1, "offset": 9, "level": DEFAULT_LEVELS[codec]}
    raw = await world.client.post(
        "/chunks/process", params={**asked, "sealed": "true"}, content=plain, headers={"X-Chunk-Key": KEY}
    )
    data = base64.b64encode(plain).decode()
    as_json = await world.post("/chunks/process", {**asked, "sealed": True, "data": data, "key": KEY})
    assert (raw.status_code, as_json.status_code) == (200, 200), raw.text
    assert raw.json() == as_json.json()
    made = raw.json()
    assert base64.b64decode(made["sealed"]) == wanted.sealed
    assert (made["hash"], made["leaf"]) == (h(wanted.sealed).hex(), wanted.leaf.hex())
    assert leaf(bytes.fromhex(made["entry"])) == wanted.leaf
    assert (made["compression"], made["key"]) == (codec.name.lower(), None)
    bytes_alone = await world.client.post(
        "/chunks/process", params=asked, content=plain, headers={"X-Chunk-Key": KEY, "Accept": OCTETS}
    )
    assert bytes_alone.content == wanted.sealed
    assert bytes_alone.headers["ETag"] == f'"{made["hash"]}"'


async def test_a_chunk_without_a_key_is_sealed_under_the_one_that_is_answered(
    world: World, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Breaks: nobody can open what was processed, or a log tells the key to everybody."""
    caplog.set_level("DEBUG")
    plain = words(5000)
    answers = [
        (await world.client.post("/chunks/process?sealed=true", content=plain)).json() for _ in range(2)
    ]
    for made in answers:
        dek = base64.b64decode(made["key"])
        assert open_plain(dek, base64.b64decode(made["sealed"])) == plain
        assert SessionKeys(dek).dek_id.hex() == made["key_id"]
    assert answers[0]["key"] != answers[1]["key"]
    refused = await world.client.post(
        "/chunks/process", content=plain, headers={"X-Chunk-Key": "a secret that is no key"}
    )
    assert (refused.status_code, refused.json()["code"]) == (400, "chunk.key")
    no_place = await world.client.post("/chunks/process", content=plain, headers={"Accept": OCTETS})
    assert (no_place.status_code, no_place.json()["code"]) == (400, "chunk.key")
    body = {"data": "", "key": KEY, "codec": "a secret that is no codec"}
    wrong = await world.post("/chunks/process", body)
    assert wrong.status_code == 422
    told = caplog.text + capsys.readouterr().err + refused.text + wrong.text
    assert "a secret" not in told
    assert not any(made["key"] in told for made in answers)


@pytest.mark.parametrize(
    ("change", "status", "code"),
    [
        ({"data": "no base64!"}, 400, "chunk.data"),
        ({"codec": "gzip", "level": 22}, 400, "config.level"),
        ({"codec": "brotli", "level": 11, "data": DEAR}, 400, "compression.cost"),
        ({"first_seq": 2, "last_seq": 1}, 400, "chunk.place"),
        ({"store": True}, 400, "chunk.parameters"),
        ({"session": NAME}, 400, "chunk.parameters"),
        ({"surplus": 1}, 422, "request.invalid"),
        ({"uid": "00"}, 422, "request.invalid"),
    ],
)  # fmt: skip
async def test_a_wrong_chunk_is_answered_with_its_code(
    world: World, change: dict[str, Any], status: int, code: str
) -> None:
    """Breaks: a caller cannot tell what is wrong with the request, or a wrong one is a bug of ours."""
    answer = await world.post("/chunks/process", {**chunk(), **change})
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.headers["content-type"] == "application/problem+json"


async def test_a_body_that_is_no_json_and_one_that_is_too_large_are_refused(world: World) -> None:
    """Breaks: bodies without a bound fill the memory."""
    headers = {"content-type": "application/json"}
    for text in ("", "{", "\0", "[" * 100_000):
        answer = await world.client.post("/chunks/process", content=text, headers=headers)
        assert answer.status_code in (400, 422), text[:10]
    large = await world.client.post("/chunks/process", content=bytes((16 << 20) + 1))
    assert (large.status_code, large.json()["code"]) == (413, "request.size")

    assert world.pool.held_bytes == 0


async def test_a_body_without_an_end_is_answered_and_its_connection_ends(world: World) -> None:
    """Breaks: one client sends for ever, and the service reads for ever."""
    reader, writer = await asyncio.open_connection("127.0.0.1", world.port)
    head = f"POST /chunks/process HTTP/1.1\r\nHost: x\r\n{world.bearer}Transfer-Encoding: chunked\r\n\r\n"
    writer.write(head.encode())
    piece = b"100000\r\n" + bytes(1 << 20) + b"\r\n"
    async with asyncio.timeout(PATIENCE_S):
        with contextlib.suppress(ConnectionError):
            while True:
                writer.write(piece)
                await writer.drain()
        with contextlib.suppress(ConnectionError):
            head = await reader.readuntil(b"\r\n\r\n")
            assert b" 413 " in head
            assert b"connection: close" in head
    writer.close()
    await settled(world)


async def test_ten_bad_chunks_of_a_thousand_are_ten_problems_and_disturb_no_other(world: World) -> None:
    """Breaks: one chunk that is wrong loses the other 999."""
    bad: dict[int, Any] = {
        0: None,
        17: "text",
        111: {},
        222: {"data": 5},
        333: chunk() | {"data": "no base64!"},
        444: chunk() | {"codec": "rar"},
        555: chunk() | {"codec": "gzip", "level": 22},
        666: chunk() | {"key": "short"},
        777: chunk() | {"session": "nobody"},
        999: chunk() | {"track": 7},
    }
    chunks = [bad.get(number, chunk(number)) if number in bad else chunk(number) for number in range(1000)]
    beside = asyncio.create_task(world.post("/chunks/process", chunk(5000)))
    answer = await world.post("/chunks/batch", {"chunks": chunks})
    made = answer.json()
    assert answer.status_code == 200
    assert [problem["position"] for problem in made["problems"]] == sorted(bad)
    assert all(problem["problem"]["code"] and problem["problem"]["status"] for problem in made["problems"])
    assert [result["position"] for result in made["results"]] == [n for n in range(1000) if n not in bad]
    settings = Settings().session()
    for result in made["results"]:
        plain = base64.b64decode(chunks[result["position"]]["data"])
        wanted = process(plain, UID, place(result["position"]), settings, SessionKeys(DEK))
        assert result["hash"] == wanted.entry.digest.hex()
    assert (await beside).status_code == 200
    await settled(world)
    assert world.pool.waiting == 0


async def test_a_batch_beyond_its_bounds_is_refused(world: World) -> None:
    """Breaks: one request takes as much work as a caller likes."""
    for body in ({"chunks": []}, {"chunks": [chunk()] * 1001}, {"chunks": {}}, {}, []):
        answer = await world.post("/chunks/batch", body)
        assert (answer.status_code, answer.json()["code"]) == (422, "request.invalid")


async def test_a_full_queue_answers_429_and_says_when_to_come_again(jet: Jet, tmp_path: Path) -> None:
    """Breaks: work piles up in memory, or a client hammers a service that has no room."""
    held = threading.Event()
    async with world_of(jet, tmp_path, PoolLimits(workers=1, queue=2)) as world:
        pool = world.pool
        taken = [asyncio.create_task(pool.run("other", held.wait)) for _ in range(3)]
        await asyncio.sleep(0)
        assert pool.waiting == 2
        refused = await world.post("/chunks/process", chunk())
        assert (refused.status_code, refused.json()["code"]) == (429, "queue.full")
        assert int(refused.headers["Retry-After"]) >= 1
        batch = (await world.post("/chunks/batch", {"chunks": [chunk(0), chunk(1)]})).json()
        assert [one["problem"]["status"] for one in batch["problems"]] == [429, 429]
        held.set()
        await asyncio.gather(*taken)
        assert (await world.post("/chunks/process", chunk())).status_code == 200


async def test_bodies_beyond_the_memory_answer_429(jet: Jet, tmp_path: Path) -> None:
    """Breaks: many large bodies at once end the service for everybody."""
    async with world_of(jet, tmp_path, PoolLimits(memory_bytes=1 << 20)) as world:
        refused = await world.client.post("/chunks/process", content=bytes((1 << 20) + 1))
        assert (refused.status_code, refused.json()["code"]) == (429, "queue.full")
        assert world.pool.held_bytes == 0
        assert (await world.client.post("/chunks/process", content=bytes(1 << 20))).status_code == 200


async def test_a_late_chunk_answers_and_its_worker_is_counted_until_it_ends(jet: Jet, tmp_path: Path) -> None:
    """Breaks: a client waits for ever behind a chunk that never ends."""
    held = threading.Event()
    async with world_of(jet, tmp_path, PoolLimits(workers=1, timeout_s=0.2)) as world:
        stuck = asyncio.create_task(world.pool.run("other", held.wait))
        late = await world.post("/chunks/process", chunk())
        assert (late.status_code, late.json()["code"]) == (503, "processor.timeout")
        assert "Retry-After" in late.headers
        metrics = (await world.client.get("/metrics")).text
        assert 'lucid_processor_running{process="lucid"} 1.0' in metrics
        held.set()
        await asyncio.gather(stuck, return_exceptions=True)


async def test_a_slow_body_is_ended_and_holds_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks: a few clients that drip bytes hold every place in the store."""
    monkeypatch.setattr(arriving, "GRACE_S", 0.3)
    await install(world.jet, world.data, RecordedSession(fragments=6), live=True, declared=True)
    for head in ("POST /chunks/process", f"PUT /chunks/{NAME}/0"):
        reader, writer = await asyncio.open_connection("127.0.0.1", world.port)
        head = f"{head} HTTP/1.1\r\nHost: x\r\n{world.bearer}Content-Length: 5000\r\n\r\n"
        writer.write(head.encode() + b"abc")
        async with asyncio.timeout(PATIENCE_S):
            assert b" 408 " in await reader.readline()
        writer.close()
    await settled(world)


class Taken(Uploads):
    """Takes uploads as they come, without a session. Tells how many are under way."""

    def __init__(self) -> None:
        self.under_way, self.begun, self.ended = 0, asyncio.Event(), asyncio.Event()

    async def send(self, session_id: str, body: AsyncIterator[bytes], offset: int | None = None) -> int:
        self.under_way += 1
        try:
            async for piece in body:
                offset = (offset or 0) + len(piece)
                self.begun.set()
            return offset or 0
        finally:
            self.under_way -= 1
            self.ended.set()


UPLOADS = ["/pipelines/sent/chunks", "/chunks/sent/process"]


@pytest.mark.parametrize("path", UPLOADS)
async def test_an_upload_that_stands_still_is_ended(
    jet: Jet, tmp_path: Path, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks: a host that lost its network holds its session, and can never send the rest."""
    monkeypatch.setattr(arriving, "GRACE_S", 0.3)
    uploads = Taken()
    async with world_of(jet, tmp_path, roles=["recorder", "pipeline"], uploads=uploads) as world:
        reader, writer = await asyncio.open_connection("127.0.0.1", world.port)
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\n{world.bearer}Content-Length: {99 << 20}\r\n\r\n"
        writer.write(head.encode() + bytes(1 << 20))  # bytes that came fast earn no hours of silence
        async with asyncio.timeout(PATIENCE_S):
            assert b" 408 " in await reader.readline()
        writer.close()
        assert uploads.under_way == 0


@pytest.mark.parametrize("path", UPLOADS)
async def test_an_upload_whose_client_leaves_ends_without_an_error(
    jet: Jet, tmp_path: Path, path: str, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    """Breaks: every client that hangs up is a bug with a traceback in the log."""
    uploads = Taken()
    async with world_of(jet, tmp_path, roles=["recorder", "pipeline"], uploads=uploads) as world:
        _, writer = await asyncio.open_connection("127.0.0.1", world.port)
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\n{world.bearer}Content-Length: 5000\r\n\r\n"
        writer.write(head.encode() + b"abc")
        async with asyncio.timeout(PATIENCE_S):
            await uploads.begun.wait()
            writer.close()
            await uploads.ended.wait()
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []
    assert "request_failed" not in capsys.readouterr().err


async def test_a_large_answer_is_counted_until_it_is_taken(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks: callers that read no answer fill the memory, and no bound counts it."""
    monkeypatch.setattr(transfers, "PIECE_S", 1.0)
    sealed = base64.b64encode(Random(1).randbytes(12 << 20)).decode()
    body = json.dumps({"data": sealed, "key": KEY, "sealed": True}).encode()
    with socket.socket() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(slow, ("127.0.0.1", world.port))
        head = f"POST /chunks/process HTTP/1.1\r\nHost: x\r\n{world.bearer}Content-Type: application/json\r\n"
        await loop.sock_sendall(slow, f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        async with asyncio.timeout(PATIENCE_S):
            assert b" 200 " in await loop.sock_recv(slow, 100)  # the answer was made, and is not taken
        assert world.pool.held_bytes == len(body)
        await settled(world)  # it was cut off


async def test_a_body_that_ends_early_is_no_chunk(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """Breaks: half a body is processed or stored as a whole one, or each client that leaves is an error."""
    held = await install(world.jet, world.data, RecordedSession(fragments=6), live=True, declared=True)
    for head in ("POST /chunks/process", f"PUT /chunks/{NAME}/0"):
        _, writer = await asyncio.open_connection("127.0.0.1", world.port)
        body = held.files[0]
        length = len(body) + 1 if head.startswith("POST") else len(body)
        head = f"{head} HTTP/1.1\r\nHost: x\r\n{world.bearer}Content-Length: {length}\r\n\r\n"
        writer.write(head.encode() + body[:-1])
        await writer.drain()
        writer.close()
    await settled(world)
    assert (await world.client.get(f"/chunks/{NAME}/0")).status_code == 404
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


async def settled(world: World) -> None:
    """Nothing is held any more."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            if not (world.pool.held_bytes or world.pool.running or world.parts.chunks.store.puts):
                return
            await asyncio.sleep(0.01)


async def test_thousands_of_tiny_batches_leave_nothing_behind(world: World) -> None:
    """Breaks: memory or places leak with each request, until the service must be restarted."""

    async def many() -> None:
        for number in range(100):
            body = {"chunks": [chunk(number, 10), {"data": 1}]}
            made = (await world.post("/chunks/batch", body)).json()
            assert (len(made["results"]), len(made["problems"])) == (1, 1)

    await asyncio.gather(*(many() for _ in range(10)))
    await settled(world)
    assert world.pool.counts.done == 1000


@pytest.fixture
async def live(world: World) -> InstalledSession:
    return await install(world.jet, world.data, RecordedSession(fragments=6), live=True, declared=True)


async def test_a_chunk_is_put_once_and_read_in_every_way(world: World, live: InstalledSession) -> None:
    """Breaks: a store over HTTP loses the promises of the store."""
    where, body = f"/chunks/{NAME}/0", live.files[0]
    etag = f'"{h(body).hex()}"'
    assert (await world.client.get(where)).json()["code"] == "chunk.absent"
    created = await world.client.put(where, content=body)
    assert (created.status_code, created.headers["Location"], created.headers["ETag"]) == (201, where, etag)
    again = await world.client.put(where, content=body)
    assert (again.status_code, again.json()["created"]) == (200, False)
    other = await world.client.put(where, content=live.files[1])
    assert (other.status_code, other.json()["code"]) == (422, "chunk.other")
    whole = await world.client.get(where)
    assert (whole.content, whole.headers["ETag"]) == (body, etag)
    head = await world.client.head(where)
    assert (head.content, head.headers["ETag"], int(head.headers["Content-Length"])) == (b"", etag, len(body))
    same = await world.client.get(where, headers={"If-None-Match": f'W/"x", {etag}'})
    assert (same.status_code, same.content, same.headers["ETag"]) == (304, b"", etag)
    size = len(body)
    for asked, first, end in (("0-0", 0, 1), ("5-99", 5, 100), ("-7", size - 7, size)):
        part = await world.client.get(where, headers={"Range": f"bytes={asked}", "If-Range": etag})
        assert (part.status_code, part.content) == (206, body[first:end])
        assert part.headers["Content-Range"] == f"bytes {first}-{end - 1}/{len(body)}"
    changed = await world.client.get(where, headers={"Range": "bytes=0-0", "If-Range": '"x"'})
    assert (changed.status_code, changed.content) == (200, body)
    outside = await world.client.get(where, headers={"Range": f"bytes={len(body)}-"})
    assert (outside.status_code, outside.headers["Content-Range"]) == (416, f"bytes */{len(body)}")


async def test_evidence_is_neither_deleted_nor_replaced_over_http(
    world: World, live: InstalledSession
) -> None:
    """Breaks: one request removes a chunk of evidence."""
    where, body = f"/chunks/{NAME}/0", live.files[0]
    await world.client.put(where, content=body)
    for method in ("DELETE", "PATCH", "POST"):
        refused = await world.client.request(method, where)
        assert (refused.status_code, refused.json()["code"]) == (405, "http.405")
    assert (await world.client.get(where)).content == body


async def test_64_clients_put_one_chunk_and_all_answers_are_true(
    world: World, live: InstalledSession
) -> None:
    """Breaks: two clients are told that they made the chunk, or one is told so of other bytes."""
    body = live.files[0]
    wrong = bytes([*body[:-1], body[-1] ^ 1])
    where = f"/chunks/{NAME}/0"
    answers = await asyncio.gather(
        *(world.client.put(where, content=body if number % 2 else wrong) for number in range(64))
    )
    right, refused = answers[1::2], answers[0::2]
    assert sorted(one.status_code for one in right) == [200] * 31 + [201]
    assert {one.status_code for one in refused} == {409}
    assert {one.json()["code"] for one in refused} <= {"chunk.unproven", "chunk.exists"}
    assert (await world.client.get(where)).content == body


async def test_a_lost_chunk_is_made_again_from_its_plain_bytes(world: World, live: InstalledSession) -> None:
    """Breaks: the plain bytes of a lost chunk are at hand, and nothing can be done with them."""
    recorded = live.recorded
    plain = open_plain(recorded_key(), live.files[0])
    asked = {"session": NAME, "index": 0, "data": base64.b64encode(plain).decode()}
    made = await world.post("/chunks/process", {**asked, "store": True})
    assert (made.status_code, made.json()["location"]) == (200, f"/chunks/{NAME}/0"), made.text
    assert (made.json()["hash"], made.json()["key"]) == (h(live.files[0]).hex(), None)
    assert (await world.client.get(f"/chunks/{NAME}/0")).content == live.files[0]
    other = bytes([plain[0] ^ 1, *plain[1:]])
    refused = await world.post(
        "/chunks/process", {**asked, "data": base64.b64encode(other).decode(), "sealed": True}
    )
    assert (refused.status_code, refused.json()["code"]) == (409, "chunk.unproven")
    absent = await world.post("/chunks/process", {**asked, "index": len(recorded.recorded) + 5})
    assert (absent.status_code, absent.json()["code"]) == (409, "chunk.unproven")


def recorded_key() -> bytes:
    return b"d" * 32


async def test_proofs_of_a_sealed_session_lead_to_its_signed_root(world: World) -> None:
    """Breaks: a proof over HTTP does not lead to the root that was signed."""
    sealed = await install(world.jet, world.data, RecordedSession(fragments=6), live=False, declared=True)
    manifest = sealed.manifest
    assert manifest is not None
    root, size = manifest.merkle.root, manifest.merkle.tree_size
    pages, after = [], -1
    while True:
        url = f"/sessions/{NAME}/merkle"
        page = (await world.client.get(url, params={"after": after, "limit": 2})).json()
        assert (page["sealed"], page["root"], page["tree_size"]) == (True, root.hex(), size)
        pages += page["leaves"]
        if page["next"] is None:
            break
        after = page["next"]
    assert [one["index"] for one in pages] == list(range(size))
    for one in pages:
        shown = (await world.client.get(f"/sessions/{NAME}/merkle/{one['index']}")).json()
        proof = InclusionProof.parse(bytes.fromhex(shown["proof"]))
        assert [node.hex() for node in proof.path] == shown["path"]
        assert verify_inclusion(proof, bytes.fromhex(one["leaf"]), root)
        params = {"from": one["index"]}
        grown = (await world.client.get(f"/sessions/{NAME}/merkle/consistency", params=params)).json()
        consistent = ConsistencyProof.parse(bytes.fromhex(grown["proof"]))
        assert verify_consistency(consistent, bytes.fromhex(grown["from_root"]), root)
    absent = await world.client.get(f"/sessions/{NAME}/merkle/{size}")
    assert (absent.status_code, absent.json()["code"]) == (404, "chunk.absent")
    too_far = await world.client.get(f"/sessions/{NAME}/merkle/consistency?from={size + 1}")
    assert (too_far.status_code, too_far.json()["code"]) == (409, "merkle.size")


async def test_the_signed_manifest_comes_as_it_is_stored(jet: Jet, tmp_path: Path) -> None:
    """Breaks: a verifier gets another text than the one that was signed, on one path or the other."""
    async with world_of(jet, tmp_path, roles=("processor", "api")) as world:
        sealed = await install(world.jet, world.data, RecordedSession(fragments=6), live=False, declared=True)
        paths = [f"/sessions/{NAME}/manifest", f"/api/v1/sessions/{NAME}/manifest"]
        etag = f'"{h(sealed.envelope).hex()}"'
        for where in paths:
            got = await world.client.get(where)
            assert (got.content, got.headers["ETag"]) == (sealed.envelope, etag)
            assert json.loads(got.content)["signatures"]
            assert (await world.client.get(where, headers={"If-None-Match": etag})).status_code == 304
        (data,) = (world.data.manifests / sealed.uid.hex()).iterdir()
        data.write_bytes(sealed.envelope[:-1] + b" ")
        for where in paths:
            false = await world.client.get(where)
            assert (false.status_code, false.json()["code"]) == (422, "manifest.digest")
            assert (await world.client.head(where)).status_code == 422


async def test_a_live_session_has_a_tree_without_a_signature(world: World, live: InstalledSession) -> None:
    """Breaks: the root of a session that still grows is taken for a signed one."""
    page = (await world.client.get(f"/sessions/{NAME}/merkle")).json()
    assert (page["sealed"], page["tree_size"]) == (False, len(live.files))
    unsealed = await world.client.get(f"/sessions/{NAME}/manifest")
    assert (unsealed.status_code, unsealed.json()["code"]) == (409, "evidence.unsealed")
