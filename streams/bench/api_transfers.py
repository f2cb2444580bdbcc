"""Measures whole bodies: an upload, the download of a recording, and of a plain file beside it.

1. Both downloads go to the same client, one after the other, three times by turns; the median counts.
2. The plain file is served by the same HTTP server with the framework's own file response.
"""

import asyncio
import json
import statistics
import time
from collections.abc import Mapping
from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import FileResponse

from schemas.errors import EvidenceFalse, Unavailable
from streams.api.server import bound, serve
from streams.bench.actors import Actor, Cue, JsonObject, Role
from streams.bench.api_requests import API, of_times
from streams.bench.contender import Task
from streams.bench.http_client import HttpClient, Transfer, download, upload
from streams.bench.meter import Meter, Used
from streams.bench.pipeline import Running, sealed

SESSION = "transferred"
ROUNDS = 3
RANGES, RANGE_BYTES = 50, 1_000_000
LOOPBACK = "127.0.0.1"


async def measure(task: Task, up: Running) -> JsonObject:
    """The figures of a recording of the task's source. Raises EvidenceFalse (bench.false)."""
    token = up.here.credential()
    spec = {"url": up.api_url, "token": token, "source": str(task.source.path)}
    async with HttpClient(up.api_url, token) as client:
        await _told(client, API, {"id": SESSION})
        await _told(client, f"{API}/{SESSION}/start", {})
        sent = await acted(up, task, send, spec)
        await _told(client, f"{API}/{SESSION}/stop", {})
        await sealed(up.jet, SESSION)
    async with Actor(serve_file, {"file": str(task.source.path)}, task.folder / "file.log") as plain:
        spec = {**spec, "plain_url": plain.greeting["url"]}
        got = await acted(up, task, receive, spec, {"plain file": plain.pid})
        plain.go()
        await plain.done()
    if got.pop("digest") != task.source.digest.hex():
        raise EvidenceFalse("the download differs from the source", code="bench.false")
    return {"bytes": task.source.size, "upload": sent, "download": got}


async def send(cue: Cue, spec: JsonObject) -> JsonObject:
    """Actor: upload a file. spec: url, token, source."""
    await cue.ready()
    url = f"{spec['url']}/pipelines/{SESSION}/chunks"
    done = await asyncio.to_thread(upload, url, _headers(spec), Path(spec["source"]))
    return {"seconds": done.seconds, "mb_per_s": done.mb_per_s}


async def receive(cue: Cue, spec: JsonObject) -> JsonObject:
    """Actor: download the recording and the plain file by turns, then ranges. spec: plain_url, too."""
    whole, headers = f"{spec['url']}{API}/{SESSION}/recording", _headers(spec)
    await cue.ready()
    checked = await asyncio.to_thread(lambda: download(whole, headers, hashed=True))
    ours: list[Transfer] = []
    plain: list[Transfer] = []
    for _ in range(ROUNDS):
        plain.append(await asyncio.to_thread(download, spec["plain_url"], headers))
        ours.append(await asyncio.to_thread(download, whole, headers))
    ranges = [await asyncio.to_thread(_range, whole, headers, checked.size, n) for n in range(RANGES)]
    mb_per_s = statistics.median(one.mb_per_s for one in ours)
    plain_mb_per_s = statistics.median(one.mb_per_s for one in plain)
    return {
        "digest": checked.digest,
        "mb_per_s": mb_per_s,
        "plain_mb_per_s": plain_mb_per_s,
        "ratio": mb_per_s / plain_mb_per_s,
        "range_ms": of_times(one.seconds * 1000 for one in ranges),
    }


async def serve_file(cue: Cue, spec: JsonObject) -> JsonObject:
    """Actor: serve one file until the parent says stop. spec: file."""
    app, stop = FastAPI(openapi_url=None), asyncio.Event()

    @app.get("/file")
    async def file() -> FileResponse:
        return FileResponse(spec["file"], media_type="application/octet-stream")

    listening = bound(LOOPBACK, 0)
    serving = asyncio.create_task(serve(app, listening, stop))
    await cue.ready(url=f"http://{LOOPBACK}:{listening.getsockname()[1]}/file")
    stop.set()
    await serving
    return {}


async def acted(
    up: Running, task: Task, role: Role, spec: JsonObject, more: Mapping[str, int] | None = None
) -> JsonObject:
    """The report of an actor, and the use of every process meanwhile. more: other processes, by name."""
    async with (
        Actor(role, spec, task.folder / "client.log", up.environment) as actor,
        Meter({**up.pids, "client": actor.pid, **(more or {})}) as meter,
    ):
        began_s = time.monotonic()
        actor.go()
        report = await actor.done()
        seconds = time.monotonic() - began_s
    processes = {name: _use(used, seconds) for name, used in meter.used.items()}
    return {**report, "others_share": meter.others, "processes": processes}


def _use(used: Used, seconds: float) -> JsonObject:
    return {"cpu_s": used.cpu_s, "cpu_share": used.cpu_s / seconds, "peak_bytes": used.peak_bytes}


async def _told(client: HttpClient, path: str, body: JsonObject) -> None:
    answer = await client.ask("POST", path, json.dumps(body).encode())
    if answer.status not in (200, 201):
        raise Unavailable(f"POST {path}: {answer.status} {answer.body[:300]!r}", code="bench.http")


def _headers(spec: JsonObject) -> dict[str, str]:
    return {"Authorization": f"Bearer {spec['token']}"}


def _range(url: str, headers: dict[str, str], size: int, number: int) -> Transfer:
    first = number * max(size - RANGE_BYTES, 0) // RANGES
    return download(url, {**headers, "Range": f"bytes={first}-{first + RANGE_BYTES - 1}"})
