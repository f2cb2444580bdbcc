"""Writes one session: seals data into fragments, sends them, ends the recording.

1. A fragment is sealed once. Its bytes stay in the outbox until the stream holds them.
2. Part and gap fragments are barriers. `final` is sent when everything before it is acknowledged.
3. An idle source makes a tick every TICK_S, so that silence always means a fault.
4. While sending is paused, the source is not read: a file waits, an encoder stands still. A resume fragment
   comes before later fragments, also when a paused recording is ended.
5. Host time never runs backwards within a session, even if the clock does.
6. While the platform grants no quota, data waits unsealed and ticks are sent. If the recording is ended
   meanwhile, the waiting data is given up: a gap says so, and `final` follows.
7. A recording that breaks off is ended like every other: a gap gives the reason, and `final` follows.
8. A fragment fits into one message of this server, even if chunks are larger.
Source: docs/design.md §2 (Start), docs/format.md §2, §4.
"""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from handlers.format.fragment import FragmentSealer
from schemas import subjects
from schemas.buffers import Bytes
from schemas.config.logs import logger
from schemas.errors import LucidError, NoSpace
from schemas.format.digest import Buffer
from schemas.format.fragment import PartSettings
from schemas.ports import Credential, Writer, no_token
from streams.host.fragment_message import fragment_bytes, fragment_headers
from streams.host.fragment_traces import ExpectedChunk, FragmentTraces
from streams.host.outbox import Outbox
from streams.host.send_quota import SendQuota
from streams.scheduling.clock import Clock, now_us

TICK_S = 10.0
READ_FRAGMENTS = 4
"""A source is read in blocks of so many fragments: boxes that come together are joined."""
NO_SPACE = "no_space"
"""Reason of the gap in place of data that was given up."""
QUOTA_RETRY_S = 2.0
"""Between two requests of a publisher that waits for a quota."""

log = logger("lucid.publisher")


@dataclass(frozen=True, slots=True)
class Grant:
    """A started session: all that its host needs to write to it."""

    session: str
    host: str
    uid: bytes
    genesis: bytes
    """Of track 0."""
    intake_public: bytes
    sign_key: Ed25519PrivateKey
    chunk_bytes: int
    credential: Credential = no_token
    """Makes the tokens of the host; `no_token` makes none."""
    chunk_max_seconds: int = 0
    """0: unknown."""


@dataclass(frozen=True, slots=True)
class Progress:
    """Counts of a publisher so far. trouble: why it waits; empty: it does not."""

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
        clock_us: Clock = now_us,
        quota: SendQuota | None = None,
    ) -> None:
        self.grant = grant
        self._subject = subjects.recording(grant.host, grant.session)
        self._jet = jet
        self._sealer = FragmentSealer(grant.uid, 0, grant.sign_key, grant.intake_public, grant.genesis)
        self._outbox = Outbox(self._publish, self._troubled)
        expected = ExpectedChunk(grant.chunk_bytes, grant.chunk_max_seconds)
        self._traces = FragmentTraces(jet.tracer, grant.host, grant.session, grant.uid, expected)
        self._on_progress = on_progress
        self._clock_us = clock_us
        self._first_us = self._last_us = 0
        self._trouble = self._waiting = ""
        self._quota = quota
        self._ending = asyncio.Event()
        """Set when the recording is to end: data no longer waits for a quota."""
        self._paused = ""
        """Why sending is paused; empty: it is not."""
        self._woken = asyncio.Event()
        """Set when sending is paused or resumed, or the recording is to end."""
        self._lost_us = 0
        """Host time since which data is given up, as no quota came; 0: none was given up."""
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
        """Begin a part: another encoder from now on. Every session begins with one."""
        await self._send(
            self._sealer.part(PartSettings(encoder=encoder, reason=reason), self._time_us()), True
        )

    async def send(self, data: Buffer, key_frame: bool = False) -> None:
        """Send bytes of any length; `key_frame` is of their first."""
        view = memoryview(data)
        for at in range(0, len(view), self.block_bytes):
            block, flag = view[at : at + self.block_bytes], key_frame and at == 0
            if not await self._may_send(len(block)):
                return
            await self._send(self._sealer.data(block, self._time_us(), flag))

    async def tick(self) -> None:
        await self._send(self._sealer.tick(self._time_us()))

    async def gap(self, from_us: int, to_us: int, frames: int, reason: str) -> None:
        """Declare data that was lost before it could be sealed."""
        await self._send(self._sealer.gap(from_us, to_us, frames, reason, self._time_us()), True)

    async def lost(self, seconds: float, reason: str) -> None:
        """Declare the last seconds of the source as lost."""
        now_us = self._time_us()
        await self.gap(max(self._first_us, now_us - round(seconds * 1e6)), now_us, 0, reason)

    async def pause(self, reason: str) -> None:
        await self._send(self._sealer.pause(reason, self._time_us()))

    async def resume(self, reason: str) -> None:
        await self._send(self._sealer.resume(reason, self._time_us()))

    def stop_waiting(self) -> None:
        """The recording is to end: from now on data is given up if it would wait for a quota."""
        self._ending.set()
        self._woken.set()

    def pause_sending(self, reason: str) -> None:
        """From now on nothing of the source is sent. reason: a label."""
        self._paused = reason
        self._woken.set()

    @property
    def is_paused(self) -> bool:
        """Whether sending is paused, or is to be."""
        return bool(self._paused)

    def resume_sending(self) -> None:
        """Send the source again."""
        self._paused = ""
        self._woken.set()

    async def wait_while_paused(self) -> None:
        """Return when sending is not paused. A pause stands between a pause and a resume fragment."""
        while self._paused and not self._ending.is_set():
            await self.pause(self._paused)
            self._waiting = "the recording is paused"
            while self._paused and not self._ending.is_set():
                self._on_progress(self.progress)
                await self.idle()
            self._waiting = ""
            await self.resume("ending" if self._paused else "resumed")

    async def idle(self, *awaited: "asyncio.Future[Any]", most_s: float | None = None) -> None:
        """Return when one of `awaited` is done, when sending is paused or resumed, or after `most_s`.

        Without `most_s` a tick is sent every TICK_S meanwhile.
        """
        self._woken.clear()
        turned = asyncio.ensure_future(self._woken.wait())
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
        """End a recording without its rest. reason: a label, for the gap. Raises as `finish`."""
        await self.gap(self._last_us, self._time_us(), 0, reason)
        return await self.finish()

    async def finish(self) -> Progress:
        """Send `final` after everything else; return when the stream holds all of it.

        Raises NoSpace (record.cut) after that, if data was given up.
        """
        if self._lost_us:
            await self.gap(self._lost_us, self._time_us(), 0, NO_SPACE)
        await self._outbox.drain()
        await self._send(self._sealer.final((), self._time_us()), True)
        if self._lost_us:
            raise NoSpace(
                f"{self.grant.session} is ended without its last seconds: there was no room for them",
                code="record.cut",
                hint=f"the fragments sent are kept: lucid sessions show {self.grant.session}",
            )
        return self.progress

    async def leave(self) -> Progress:
        """Return when the stream holds all fragments sent; the platform makes the end."""
        await self._outbox.drain()
        return self.progress

    async def close(self) -> None:
        """Give up the fragments that the stream does not hold yet."""
        await self._outbox.close()
        self._traces.close(asyncio.CancelledError("given up"))

    async def _may_send(self, size: int) -> bool:
        """Wait until so many bytes of data may be sent, with ticks meanwhile; False: they are given up."""
        clock = asyncio.get_running_loop().time
        tick_s = clock() + TICK_S
        while self._quota is not None and not self._lost_us:
            if await self._quota.take(size, self._outbox.sending):
                self._waiting = ""
                return True
            self._waiting = f"recordings fill {self._quota.filled:.0%} of their space, data waits for room"
            self._on_progress(self.progress)
            if self._ending.is_set():
                self._lost_us, self._waiting = self._time_us(), ""
                log.warning("data_given_up", session=self.grant.session, reason=NO_SPACE)
                break
            with suppress(TimeoutError):
                async with asyncio.timeout(QUOTA_RETRY_S):
                    await self._ending.wait()
            if clock() >= tick_s:
                tick_s = clock() + TICK_S
                await self.tick()
        return not self._lost_us

    async def _send(self, fragment: bytearray, barrier: bool = False) -> None:
        headers = self._headers(self._sealer.state.next_seq - 1, self._traces.begin(fragment))
        await self._outbox.send(fragment, headers, barrier=barrier)
        self._on_progress(self.progress)

    async def _publish(self, data: Bytes, headers: Mapping[str, str]) -> None:
        ack = await self._jet.publish(self._subject, data, headers)
        self._traces.sent(headers.get("traceparent", ""), ack.seq)
        self._trouble = ""
        self._on_progress(self.progress)

    def _troubled(self, error: LucidError) -> None:
        if self._quota is not None and isinstance(error, NoSpace):
            self._quota.refuse()
        self._trouble = error.message
        self._on_progress(self.progress)

    def _headers(self, seq: int, traceparent: str) -> dict[str, str]:
        return fragment_headers(self.grant.host, self.grant.uid, seq, traceparent)

    def _time_us(self) -> int:
        """Host time of a fragment that is made now; noted in `progress`."""
        self._last_us = max(self._clock_us(), self._last_us)
        self._first_us = self._first_us or self._last_us
        return self._last_us
