"""Measures the pipeline with traces: fully sampled, and with a server for traces that is away.

    lucid bench --only pipeline,traced,hanging,refusing --runs 5    beside the pipeline without traces

The server is a process that reads spans and forgets them: no database competes for the machine.
"""

import asyncio
import socket
from contextlib import suppress
from dataclasses import replace
from functools import partial

from streams.bench import pipeline
from streams.bench.actors import Actor, Cue, JsonObject
from streams.bench.contender import Measure, Task

LOOPBACK = "127.0.0.1"
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-protobuf\r\nContent-Length: 0\r\n\r\n"
VARIABLE = "OTEL_EXPORTER_OTLP_ENDPOINT"


async def measure_traced(task: Task) -> Measure:
    """Every span is kept and exported."""
    return await _measure(task, answers=True)


async def measure_hanging(task: Task) -> Measure:
    """The server takes connections and never answers."""
    return await _measure(task, answers=False)


async def measure_refusing(task: Task) -> Measure:
    """The server is stopped: each connection is refused."""
    with socket.socket() as held:
        held.bind((LOOPBACK, 0))  # it does not listen
        return await pipeline.measure(_sending_to(task, held.getsockname()[1]))


async def _measure(task: Task, *, answers: bool) -> Measure:
    async with Actor(serve, {"answers": answers}, task.folder / "traces.log", task.environment) as server:
        measured = await pipeline.measure(_sending_to(task, server.greeting["port"]))
        server.go()
        taken = await server.done()
    return replace(measured, more={**measured.more, **taken})


def _sending_to(task: Task, port: int) -> Task:
    return replace(task, environment={**task.environment, VARIABLE: f"http://{LOOPBACK}:{port}"})


async def serve(cue: Cue, spec: JsonObject) -> JsonObject:
    """Actor: take spans over HTTP until the parent says stop. spec: answers."""
    taken = {"trace_requests": 0, "trace_bytes": 0}
    server = await asyncio.start_server(partial(_take, taken, spec["answers"]), LOOPBACK)
    await cue.ready(port=server.sockets[0].getsockname()[1])
    server.close()
    return dict(taken)


async def _take(
    taken: dict[str, int], answers: bool, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    with suppress(asyncio.IncompleteReadError, ConnectionError):
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            size = int(head.partition(b"content-length:")[2].split(b"\r\n")[0])
            await reader.readexactly(size)
            taken["trace_requests"] += 1
            taken["trace_bytes"] += size
            if answers:
                writer.write(ANSWER)
                await writer.drain()
    writer.close()
