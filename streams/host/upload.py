"""Seals bytes that come without a host of their own, over HTTP, into the fragments of a session.

1. The platform is the host here: UPLOAD_HOST, a key of this installation. Nobody vouches for the bytes before
   they came in, so the manifest says `attested: false` under that name.
2. The stream is the only state. Each fragment is appended with the expected sequence of its subject: two
   processes, or one before and one after a crash, never fork the chain.
3. An upload names the offset of its first byte, so a repeated one adds nothing twice. After a crash the next
   request reads how far the stream came, and goes on there in a new part under a new key.
4. An answer means that all bytes of the request are durable in the stream.

Source: docs/format.md §2, §4; docs/design.md §2.
"""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from functools import partial
from weakref import WeakValueDictionary

from handlers.format.fragment import FragmentSealer
from handlers.lifecycle.session import Session
from schemas.errors import Conflict, LucidError, NoSpace, RefusedByState, Unavailable
from schemas.events.session import State
from schemas.format.fragment import PartSettings
from schemas.ports import Identities, Jet
from schemas.subjects import UPLOAD_HOST
from schemas.telemetry import span_facts
from streams.event_store.recordings import Recordings
from streams.event_store.session_log import SessionLog
from streams.host.fragment_message import fragment_bytes, fragment_headers
from streams.host.send_quota import SendQuota
from streams.host.upload_chain import Chain, ChainReader, created
from streams.host.upload_traces import uploaded
from streams.scheduling.clock import Clock, now_us
from streams.scheduling.retry import LOG_OUTAGE, retry

ENCODER = "http"
CONFLICTS_MOST = 8
"""Each one means that another request of the same session was first."""
CHAINS_MOST = 1024
"""Chains that are remembered: without it each request would read its open chunk from the stream again."""
LOOK_S = 1.0
"""How often a long upload looks whether its session was paused or ended."""

Make = Callable[[FragmentSealer, int], bytearray]
"""Makes the next fragment; takes the host time."""


class Uploads:
    """The uploads of one process. Requests of one session are served one after the other."""

    def __init__(
        self, jet: Jet, recordings: Recordings, identities: Identities, clock_us: Clock = now_us
    ) -> None:
        self._jet, self._log, self._clock_us = jet, SessionLog(jet), clock_us
        self._reader = ChainReader(jet, recordings, identities)
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._chains: OrderedDict[str, Chain] = OrderedDict()

    async def offset(self, session_id: str) -> int:
        """Plain bytes of the session that the stream holds. Raises as `send`."""
        async with self._turn(session_id):
            return (await self._load(session_id)).offset

    async def send(self, session_id: str, body: AsyncIterator[bytes], offset: int | None = None) -> int:
        """Append the body to the recording, and return the new offset; all of it is durable then.

        offset: that of the body's first byte; bytes before the present offset are skipped. None: append.
        Raises NotFound (session.absent), RefusedByState (upload.host, upload.state, upload.offset), NoSpace
        (upload.space). Bytes before an error are kept: `offset` tells how much.
        """
        async with self._turn(session_id):
            chain = await self._load(session_id)
            _check_state(chain)
            at = chain.offset if offset is None else offset
            if at > chain.offset:
                raise _misplaced(chain, at)
            quota, loop = (
                SendQuota.of(self._jet, session_id, self._reader.credential),
                asyncio.get_running_loop(),
            )
            size = fragment_bytes(chain.created.settings.chunk_bytes, self._jet.max_payload)
            looked_s = loop.time()
            async for block in _blocks(body, chain.offset - at, size):
                if loop.time() > looked_s + LOOK_S:
                    chain.session = await self._log.advance(chain.session)
                    _check_state(chain)
                    looked_s = loop.time()
                if not await quota.take(len(block), 0):
                    raise NoSpace(
                        f"recordings fill {quota.filled:.0%} of their space: {session_id} must wait",
                        code="upload.space",
                        hint="send the rest later, from the present offset on",
                    )
                chain = await self._add(chain, partial(_data, block), chain.offset)
            return chain.offset

    async def finish(self, session_id: str) -> None:
        """End the recording: `final` is durable on return. A second call does nothing."""
        async with self._turn(session_id):
            chain = await self._load(session_id)
            if not chain.ended:
                await self._add(chain, _final, chain.offset)

    def _turn(self, session_id: str) -> asyncio.Lock:
        """The lock of one session; it goes when nobody waits for it."""
        return self._turns.setdefault(session_id, asyncio.Lock())

    async def _load(self, session_id: str) -> Chain:
        session = await self._log.existing(session_id)
        if created(session).host != UPLOAD_HOST:
            raise RefusedByState(
                f"session {session_id} is recorded by host {created(session).host}, not over HTTP",
                code="upload.host",
                hint="open a session of its own for an upload",
            )
        if not session.intake:
            raise _not_now(session)
        known = self._chains.get(session_id)
        if known is None or known.session.uid != session.uid or not await self._reader.stands(known):
            return await self._reread(session)
        known.session = session
        return known

    async def _reread(self, session: Session) -> Chain:
        chain = await self._reader.read(session)
        self._remember(chain)
        return chain

    async def _add(self, chain: Chain, make: Make, offset: int) -> Chain:
        """Append one fragment, after a part fragment if this chain has none, and return the chain.

        offset: where the caller believes the chain to be. Raises RefusedByState (upload.offset,
        upload.state): another request was first.
        """
        for _ in range(CONFLICTS_MOST):
            if not chain.has_key:
                chain, _ = await self._append(chain, _part)
            if chain.has_key:
                chain, is_stored = await self._append(chain, make)
                if is_stored:
                    return chain
            if chain.ended:
                raise _not_now(chain.session)
            if chain.offset != offset:
                raise _misplaced(chain, offset)
        raise Conflict(
            f"session {chain.session.id} is written to by too many requests at once",
            code="upload.busy",
            hint="send one request after the other",
        )

    async def _append(self, chain: Chain, make: Make) -> tuple[Chain, bool]:
        """Append one fragment; return the chain as the stream holds it, and whether the fragment is in it."""
        # While it is under way, or if it is never answered, the sealer is ahead of the stream.
        self._chains.pop(chain.session.id, None)
        seq = chain.sealer.state.next_seq
        chain.time_us = max(self._clock_us(), chain.time_us)
        with uploaded(self._jet.tracer, chain) as span:
            fragment = make(chain.sealer, chain.time_us)
            span.set({span_facts.BODY_BYTES: len(fragment)})
            headers = fragment_headers(UPLOAD_HOST, chain.session.uid, seq, span.traceparent)
            try:
                chain.last_seq = await self._jet.append(chain.subject, fragment, chain.last_seq, headers)
            except (Conflict, Unavailable) as error:
                # Unavailable: the fragment may be durable all the same, and the stream knows. If it is not
                # there, it is given up, and its bytes are sealed again.
                sent = chain.sealer.state.head
                chain = await retry(partial(self._reread, chain.session), LOG_OUTAGE)
                if chain.sealer.state.head == sent:
                    return chain, True
                span.fail(error, sent=False)
                return chain, False
            except LucidError as error:
                span.fail(error, sent=False)  # it was refused
                raise
            span.set({span_facts.STREAM_SEQ: chain.last_seq})
        chain.has_key, chain.ended = True, chain.ended or make is _final
        self._remember(chain)
        return chain, True

    def _remember(self, chain: Chain) -> None:
        self._chains[chain.session.id] = chain
        self._chains.move_to_end(chain.session.id)
        if len(self._chains) > CHAINS_MOST:
            self._chains.popitem(last=False)


async def _blocks(body: AsyncIterator[bytes], skip: int, size: int) -> AsyncIterator[memoryview]:
    """The body without its first `skip` bytes, in blocks of `size`; the last one may be shorter."""
    block, filled = bytearray(size), 0
    async for piece in body:
        view = memoryview(piece)
        if skip:
            view, skip = view[skip:], max(skip - len(piece), 0)
        while view:
            taken = min(len(view), size - filled)
            block[filled : filled + taken] = view[:taken]
            filled, view = filled + taken, view[taken:]
            if filled == size:
                yield memoryview(block)
                filled = 0
    if filled:
        yield memoryview(block)[:filled]


def _part(sealer: FragmentSealer, time_us: int) -> bytearray:
    reason = "begin" if sealer.state.part < 0 else "resumed"
    return sealer.part(PartSettings(encoder=ENCODER, reason=reason), time_us)


def _data(block: memoryview, sealer: FragmentSealer, time_us: int) -> bytearray:
    return sealer.data(block, time_us)


def _final(sealer: FragmentSealer, time_us: int) -> bytearray:
    return sealer.final((), time_us)


def _check_state(chain: Chain) -> None:
    if chain.session.state != State.ACTIVE or chain.ended:
        raise _not_now(chain.session)


def _not_now(session: Session) -> RefusedByState:
    return RefusedByState(
        f"session {session.id} is {session.state}: it takes bytes only while it is ACTIVE and has not ended",
        code="upload.state",
        hint=f"lucid sessions show {session.id}",
    )


def _misplaced(chain: Chain, at: int) -> RefusedByState:
    return RefusedByState(
        f"session {chain.session.id} has {chain.offset} bytes, and this upload begins at {at}",
        code="upload.offset",
        hint="read the present offset, and send the bytes from there on",
    )
