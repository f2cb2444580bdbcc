"""Counts transitions a second of many sessions that pause and go on without end, over NATS and over HTTP.

1. Each session waits for its own next state in the log, then sends the next command: PAUSE, RESUME. That
   makes three transitions for two commands; the conductor makes the third.
2. Transitions are counted in the log itself: a command that is answered without one counts for nothing.
"""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable

from schemas import subjects
from schemas.errors import LucidError, Unavailable
from schemas.events.session import State, Transition
from schemas.ports import Jet
from schemas.ports.messages import Message
from streams.bench.actors import Cue, JsonObject
from streams.bench.api_requests import API, of_times
from streams.bench.http_client import HttpClient
from streams.control.client import call
from streams.event_store.session_log import read_event
from streams.roles.drivers import Installation, connected

WARM_S = 2.0
STARTS_AT_ONCE = 16
NATS, HTTP = "NATS", "HTTP"

Send = Callable[[str, str], Awaitable[None]]
"""Sends a command (`pause`, `resume`) for a session."""


async def move(cue: Cue, spec: JsonObject) -> JsonObject:
    """Actor: transitions and commands a second. spec: nats, url, token, by, names, seconds.

    names: of ACTIVE sessions. by: NATS or HTTP.
    """
    credential = Installation.here().credential
    async with (
        connected(spec["nats"], "lucid-bench", credential=credential) as jet,
        HttpClient(spec["url"], spec["token"]) as client,
    ):
        await cue.ready()
        send = _by_nats(jet) if spec["by"] == NATS else _by_http(client)
        return await _moved(jet, spec["names"], send, spec["seconds"])


async def started(jet: Jet, names: list[str]) -> None:
    """Open and start sessions of the upload host."""
    turn = asyncio.Semaphore(STARTS_AT_ONCE)

    async def one(name: str) -> None:
        async with turn:
            await call(jet, "open", {"session": name})
            await call(jet, "start", {"session": name})

    await asyncio.gather(*map(one, names))


async def _moved(jet: Jet, names: list[str], send: Send, seconds: float) -> JsonObject:
    moves: dict[str, asyncio.Queue[str]] = {name: asyncio.Queue() for name in names}
    transitions, took_ms, failures = [0], list[float](), dict[str, int]()
    start = (await jet.info(subjects.LIFECYCLE)).last_seq + 1

    async def watch() -> None:
        follower = jet.follow(subjects.LIFECYCLE, [subjects.ALL_LIFECYCLE], start)
        async for item in follower:
            event = read_event(item.data) if isinstance(item, Message) else None
            if isinstance(item, Message) and isinstance(event, Transition):
                transitions[0] += 1
                if (states := moves.get(subjects.session_of(item.subject))) is not None:
                    states.put_nowait(event.to_state)

    async def one(name: str) -> None:
        states = moves[name]
        while True:
            for command, reached in (("pause", State.PAUSED), ("resume", State.ACTIVE)):
                began_s = time.perf_counter()
                try:
                    await send(command, name)
                except LucidError as error:
                    failures[error.code] = failures.get(error.code, 0) + 1
                    await asyncio.sleep(1)
                    continue
                took_ms.append((time.perf_counter() - began_s) * 1000)
                while await states.get() != reached:
                    pass

    tasks = [asyncio.create_task(watch()), *(asyncio.create_task(one(name)) for name in names)]
    try:
        await asyncio.sleep(WARM_S)
        before, began_s = transitions[0], time.monotonic()
        took_ms.clear()
        await asyncio.sleep(seconds)
        took_s, count, commands = time.monotonic() - began_s, transitions[0] - before, len(took_ms)
        if tasks[0].done():
            tasks[0].result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    if not commands:
        raise Unavailable(f"no command was answered: {failures}", code="bench.stalled")
    return {
        "sessions": len(names),
        "seconds": took_s,
        "transitions_per_s": count / took_s,
        "commands_per_s": commands / took_s,
        "command_ms": of_times(took_ms),
        "failures": failures,
    }


def _by_nats(jet: Jet) -> Send:
    async def send(command: str, name: str) -> None:
        await call(jet, command, {"session": name})

    return send


def _by_http(client: HttpClient) -> Send:
    async def send(command: str, name: str) -> None:
        answer = await client.ask("POST", f"{API}/{name}/{command}")
        if answer.status != 200:
            raise Unavailable(
                f"{command} {name}: {answer.status} {answer.body[:200]!r}",
                code=str(json.loads(answer.body).get("code", answer.status)),
            )

    return send
