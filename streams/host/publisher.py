"""The sending half of a session: seals what it is given, sends it, ends it.

1. The host's counter is durable before the session is asked for; a crash after that costs one number.
2. A fragment is sealed once. Its bytes stay in the outbox until the stream holds them.
3. Part and gap fragments are barriers. `final` is sent when everything before it is acknowledged.
4. An idle source makes a tick every TICK_S, so that silence always means that something is wrong.
5. While it is held, nothing is taken from the source: a file waits, an encoder stands still. What follows
   stands behind a resume fragment, also when a recording that rests is ended.
6. Host time never runs backwards within a session, whatever the clock does.
7. While the platform has no room for data, none is sealed: it waits, and ticks go. If the recording is ended
   meanwhile, what waits is given up: a gap says so, and `final` follows.
8. A recording that breaks off is ended like every other: what is missing is a gap with its reason, and
   `final` follows.
9. A fragment fits into one message of this server, whatever its chunks may hold.
Source: docs/design.md §2 (Start), docs/format.md §2, §4.
"""

import asyncio
import logging
import secrets
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from handlers.format.fragment import FragmentSealer
from schemas import subjects
from schemas.buffers import Bytes
from schemas.errors import LucidError, Misuse, NoSpace
from schemas.events.headers import headers
from schemas.format.digest import Buffer
from schemas.format.fragment import HEADER_BYTES, MAX_DATA_PLAIN, SIGNATURE_BYTES, TAG_BYTES, PartSettings
from schemas.ports import Writer
from streams.host.outbox import Outbox
from streams.host.send_quota import SendQuota

TICK_S = 10.0
READ_FRAGMENTS = 4
"""So many are read from a source at once: boxes that come together are joined."""
AROUND_BYTES = HEADER_BYTES + TAG_BYTES + SIGNATURE_BYTES + 1024
"""What a message holds beside plain bytes; its NATS headers have less than 500 bytes."""
USUAL_PAYLOAD = 1 << 20
"""What a server takes in one message where nobody has changed that."""
LEAST_PAYLOAD = 16 << 10
"""A server that takes less in one message is refused: most of it would be the fragments' own."""
NO_SPACE = "no_space"
"""Reason of the gap where data was given up."""
ROOM_S = 2.0
"""Between two questions of a publisher that waits for room."""
EVENT_TYPE = "lucid.fragment.v1"

log = logging.getLogger("lucid.publisher")


@dataclass(frozen=True, slots=True)
class Grant:
    """A session that was started, and what its host needs to write to it."""

    session: str
    host: str
    uid: bytes
    genesis: bytes
    """Of track 0."""
    intake_public: bytes
    sign_key: Ed25519PrivateKey
    chunk_bytes: int


@dataclass(frozen=True, slots=True)
class Progress:
    """What a publisher has done so far. `trouble`: why it is waiting, empty when it is not."""

    fragments: int = 0
    acknowledged: int = 0
    plain: int = 0
    first_us: int = 0
    last_us: int = 0
    trouble: str = ""

    @property
    def seconds(self) -> float:
        return (self.last_us - self.first_us) / 1e6


class Publisher:
    """Writes one session. Call `begin_part`, then `send` and `tick`, then `finish`; always `close`."""

    def __init__(
        self,
        jet: Writer,
        grant: Grant,
        on_progress: Callable[[Progress], None] = lambda _: None,
        now_us: Callable[[], int] = lambda: time.time_ns() // 1000,
        room: SendQuota | None = None,
    ) -> None:
        self.grant = grant
        self._subject = subjects.recording(grant.host, grant.session)
        self._jet = jet
        self._sealer = FragmentSealer(grant.uid, 0, grant.sign_key, grant.intake_public, grant.genesis)
        self._outbox = Outbox(self._publish, self._troubled)
        self._on_progress = on_progress
        self._now_us = now_us
        self._first_us = self._last_us = 0
        self._trouble = self._waiting = ""
        self._room = room
        self._impatient = asyncio.Event()
        self._paused = ""
        """Why nothing of the source is sent; empty: it is."""
        self._turned = asyncio.Event()
        """Set when it is held, let go or to end."""
        self._lost_us = 0
        """Since when data is given up for want of room; 0: none was."""
        self.block_bytes = fragment_bytes(grant.chunk_bytes, jet.max_payload)

    @property
    def progress(self) -> Progress:
        return Progress(
            fragments=self._sealer.state.next_seq,
            acknowledged=self._outbox.acknowledged,
            plain=self._sealer.state.plain,
            first_us=self._first_us,
            last_us=self._last_us,
            trouble=self._trouble or self._waiting,
        )

    async def begin_part(self, encoder: str, reason: str) -> None:
        """A new encoder, from now on. The first call of a session, too."""
        await self._send(
            self._sealer.part(PartSettings(encoder=encoder, reason=reason), self._time_us()), True
        )

    async def send(self, data: Buffer, key_frame: bool = False) -> None:
        """Send bytes of any length; `key_frame` is of their first."""
        view = memoryview(data)
        for at in range(0, len(view), self.block_bytes):
            block, flag = view[at : at + self.block_bytes], key_frame and at == 0
            if not await self._has_room(len(block)):
                return
            await self._send(self._sealer.data(block, self._time_us(), flag))

    async def tick(self) -> None:
        await self._send(self._sealer.tick(self._time_us()))

    async def gap(self, from_us: int, to_us: int, frames: int, reason: str) -> None:
        """Declare what was lost before it could be sealed."""
        await self._send(self._sealer.gap(from_us, to_us, frames, reason, self._time_us()), True)

    async def pause(self, reason: str) -> None:
        await self._send(self._sealer.pause(reason, self._time_us()))

    async def resume(self, reason: str) -> None:
        await self._send(self._sealer.resume(reason, self._time_us()))

    def stop_waiting(self) -> None:
        """The recording is to end: from now on data is given up where it would wait for room."""
        self._impatient.set()
        self._turned.set()

    def pause_sending(self, reason: str) -> None:
        """The recording is paused: from now on nothing of the source is sent."""
        self._paused = reason
        self._turned.set()

    @property
    def is_paused(self) -> bool:
        """Whether the recording is paused, or is to be."""
        return bool(self._paused)

    def resume_sending(self) -> None:
        """The recording goes on."""
        self._paused = ""
        self._turned.set()

    async def wait_while_paused(self) -> None:
        """Return at once, or when a pause is over: it stands between a pause and a resume fragment."""
        while self._paused and not self._impatient.is_set():
            await self.pause(self._paused)
            self._waiting = "the recording is paused"
            while self._paused and not self._impatient.is_set():
                self._on_progress(self.progress)
                await self.idle()
            self._waiting = ""
            await self.resume("ending" if self._paused else "resumed")

    async def idle(self, *awaited: "asyncio.Future[bytes | None]", most_s: float | None = None) -> None:
        """Return when one of them is done, after `most_s`, or when something else is to be done; ticks go."""
        self._turned.clear()
        turned = asyncio.ensure_future(self._turned.wait())
        waits: set[asyncio.Future[Any]] = {turned, *awaited}
        wait_s = TICK_S if most_s is None else max(most_s, 0.0)
        try:
            while not (await asyncio.wait(waits, timeout=wait_s, return_when=asyncio.FIRST_COMPLETED))[0]:
                if most_s is not None:
                    return
                await self.tick()
        finally:
            turned.cancel()

    async def break_off(self, reason: str) -> Progress:
        """End a recording whose rest does not come. reason: a label, for the gap. Raises as `finish`."""
        await self.gap(self._last_us, self._time_us(), 0, reason)
        return await self.finish()

    async def finish(self) -> Progress:
        """Send `final` after everything else, wait until the stream holds all of it.

        Raises NoSpace (record.cut) after that, when data was given up.
        """
        if self._lost_us:
            await self.gap(self._lost_us, self._time_us(), 0, NO_SPACE)
        await self._outbox.drained()
        await self._send(self._sealer.final((), self._time_us()), True)
        if self._lost_us:
            raise NoSpace(
                f"{self.grant.session} is ended without its last seconds: there was no room for them",
                code="record.cut",
                hint=f"what was sent is kept: lucid sessions show {self.grant.session}",
            )
        return self.progress

    async def leave(self) -> Progress:
        """Wait until the stream holds what was sent, and leave the ending to the platform."""
        await self._outbox.drained()
        return self.progress

    async def close(self) -> None:
        """Give up what the stream does not hold yet."""
        await self._outbox.close()

    async def _has_room(self, size: int) -> bool:
        """Wait until so much data may be sent, with ticks meanwhile; False: it is given up."""
        clock = asyncio.get_running_loop().time
        tick_s = clock() + TICK_S
        while self._room is not None and not self._lost_us:
            if await self._room.take(size, self._outbox.sending):
                self._waiting = ""
                return True
            self._waiting = f"recordings fill {self._room.filled:.0%} of their space, data waits for room"
            self._on_progress(self.progress)
            if self._impatient.is_set():
                self._lost_us, self._waiting = self._time_us(), ""
                log.warning("data_given_up session=%s reason=%s", self.grant.session, NO_SPACE)
                break
            with suppress(TimeoutError):
                async with asyncio.timeout(ROOM_S):
                    await self._impatient.wait()
            if clock() >= tick_s:
                tick_s = clock() + TICK_S
                await self.tick()
        return not self._lost_us

    async def _send(self, fragment: bytearray, barrier: bool = False) -> None:
        await self._outbox.send(fragment, self._headers(self._sealer.state.next_seq - 1), barrier=barrier)
        self._on_progress(self.progress)

    async def _publish(self, data: Bytes, headers: Mapping[str, str]) -> None:
        await self._jet.publish(self._subject, data, headers)
        self._trouble = ""
        self._on_progress(self.progress)

    def _troubled(self, error: LucidError) -> None:
        if self._room is not None and isinstance(error, NoSpace):
            self._room.refuse()
        self._trouble = error.message
        self._on_progress(self.progress)

    def _headers(self, seq: int) -> dict[str, str]:
        """CloudEvents attributes and a trace. No message id: one host could swallow another's message."""
        return headers(
            EVENT_TYPE,
            f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-01",
            source=f"lucid/hosts/{self.grant.host}",
            id=f"{self.grant.uid.hex()}.0.{seq}",
        )

    def _time_us(self) -> int:
        self._last_us = max(self._now_us(), self._last_us)
        self._first_us = self._first_us or self._last_us
        return self._last_us


def fragment_bytes(chunk_bytes: int, max_payload: int = USUAL_PAYLOAD) -> int:
    """Most plain bytes in one fragment: four fill a chunk, so that a chunk is never far below its size.

    max_payload: what the server takes in one message. Raises Misuse (nats.max_payload).
    """
    if max_payload < LEAST_PAYLOAD:
        raise Misuse(
            f"this NATS server takes messages of {max_payload} bytes, a recording needs {LEAST_PAYLOAD}",
            code="nats.max_payload",
            hint="raise max_payload in the server's configuration; 1MB is its default",
        )
    return min(MAX_DATA_PLAIN, chunk_bytes // 4, max_payload - AROUND_BYTES)
