"""Plays one hostile host, as an actor: every load at once that a host can put on the others.

1. Floods: good fragments of a few bytes; garbage under its own name, under each honest host's name, and under
   names of no session.
2. Work: chunks of a slow codec, as costly as the platform allows, of bytes that cost the most.
3. Commands: it creates one session after the other.
Each flood sends its next message when one is acknowledged, unless a rate bounds all floods together. The
actor runs at low priority: a real hostile host has a processor of its own.
"""

import asyncio
import os
import random
import secrets
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from handlers.format.fragment import FragmentSealer
from schemas import subjects
from schemas.errors import LucidError
from schemas.events.session import SessionSettings
from schemas.format.chunk_header import MAX_PLAIN, Codec, codec_seconds
from schemas.format.fragment import MAIN, PartSettings
from schemas.ports import Jet
from streams.bench.actors import Cue, JsonObject
from streams.host.publisher import Grant
from streams.host.session_start import start_session
from streams.roles.drivers import Installation, connected

HOST = "mallory"
UNDER_WAY = 16
"""Unacknowledged messages of each flood."""
LEVEL = 11
"""The slowest level of brotli."""
NICE = 19
PART = PartSettings(encoder="opaque", reason="start")
PLAIN_BYTES = 512 << 10
SMALL_BYTES = 24

Send = Callable[[], Awaitable[Any]]


async def attack(cue: Cue, spec: JsonObject) -> JsonObject:
    """Actor: attack from the first signal to the second; report the acknowledged messages of each kind.

    spec: url, subjects (of honest recordings), rate (messages a second of all floods together; 0: no bound).
    """
    os.nice(NICE)
    async with connected(spec["url"], "lucid-hostile") as jet:
        done = Counter[str]()
        sends = await _floods(jet, spec["subjects"])
        await cue.ready()
        pace = _Pace(spec["rate"])
        tasks = [
            asyncio.create_task(_flood(name, send, done, pace))
            for name, (send, at_once) in sends.items()
            for _ in range(at_once)
        ]
        await cue.go()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return dict(done)


class _Pace:
    """Delays messages so that all floods together keep to one rate."""

    def __init__(self, rate: float) -> None:
        self._gap_s = 1 / rate if rate else 0.0
        self._next_s = 0.0

    async def wait(self) -> None:
        now_s = time.monotonic()
        self._next_s = max(self._next_s, now_s) + self._gap_s
        await asyncio.sleep(self._next_s - self._gap_s - now_s)


async def _flood(name: str, send: Send, done: "Counter[str]", pace: _Pace) -> None:
    while True:
        await pace.wait()
        with suppress(LucidError):
            await send()
            done[name] += 1


async def _floods(jet: Jet, honest: list[str]) -> dict[str, tuple[Send, int]]:
    """By name: a function that sends one message, and how many may be unacknowledged."""
    here = Installation.here()
    costliest = SessionSettings(codec=Codec.BROTLI.value, level=LEVEL, chunk_bytes=_largest(here))
    small = await _Own.start(jet, here, "hostile-small", SessionSettings())
    slow = await _Own.start(jet, here, "hostile-slow", costliest)
    letters = bytes(random.choices(b"ab", k=PLAIN_BYTES))

    def garbage() -> bytes:
        return secrets.token_bytes(200)

    async def create() -> None:
        await start_session(jet, here.identity, HOST, f"hostile-{secrets.token_hex(8)}", SessionSettings())

    return {
        "small": (lambda: small.send(secrets.token_bytes(SMALL_BYTES)), UNDER_WAY),
        "slow": (lambda: slow.send(letters), 4),
        "garbage": (lambda: jet.publish(small.subject, garbage()), UNDER_WAY),
        "forged": (lambda: jet.publish(secrets.choice(honest), garbage()), UNDER_WAY),
        "stray": (
            lambda: jet.publish(subjects.recording(HOST, secrets.token_hex(8)), garbage()),
            UNDER_WAY,
        ),
        "create": (create, 1),
    }


def _largest(here: Installation) -> int:
    """Bytes of the largest chunk that the platform accepts with the slowest codec."""
    seconds = codec_seconds(Codec.BROTLI, LEVEL, MAX_PLAIN)
    return int(min(1.0, here.settings.compression_max_s / seconds) * MAX_PLAIN)


class _Own:
    """A valid session of the hostile host itself."""

    def __init__(self, jet: Jet, grant: Grant) -> None:
        self._jet = jet
        self.subject = subjects.recording(grant.host, grant.session)
        self._sealer = FragmentSealer(grant.uid, MAIN, grant.sign_key, grant.intake_public, grant.genesis)
        self._time_us = 1_700_000_000_000_000

    @classmethod
    async def start(cls, jet: Jet, here: Installation, name: str, settings: SessionSettings) -> "_Own":
        one = cls(jet, await start_session(jet, here.identity, HOST, name, settings))
        await jet.publish(one.subject, one._sealer.part(PART, one._time_us))
        return one

    async def send(self, plain: bytes) -> None:
        self._time_us += 1000
        fragment = self._sealer.data(plain, self._time_us)
        while True:
            with suppress(LucidError):  # without it the following fragments would only wait
                await self._jet.publish(self.subject, fragment)
                return
