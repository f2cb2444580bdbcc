"""Owns the one connection to NATS: requests, their answers, and what a lost connection means.

1. It reconnects for ever. While it is down, every request fails at once as Unavailable, and so does each
   one that was under way when it broke: waiting for the timeout would stall everything behind it.
   Such a request may have been carried out.
2. One inbox serves all requests; an answer finds its request by the last token of its subject.
3. Who sends waits only here: inside nats-py a flush would swallow a cancel and sleep through a break.
"""

import asyncio
import contextlib
import itertools
import logging
from collections.abc import Callable, Mapping
from typing import Any, Final, cast

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from infra.jetstream import errors, wire
from schemas.buffers import Bytes
from schemas.errors import LucidError
from schemas.settings_text import without_credentials

CONNECT_TIMEOUT_S = 5.0
REQUEST_TIMEOUT_S = 10.0
RECONNECT_WAIT_S = 0.25
PING_INTERVAL_S = 15
WAITING_BYTES = 4 << 20
"""More may not wait for the socket: who sends then waits here, where a lost connection wakes it."""
SMALL_BYTES = 4096
"""Acks, pulls and answers never wait for room: they are few, and others wait for them."""
UNBOUNDED_BYTES = 1 << 40
"""The driver's own bound is out of the way: at it, a publish would sleep through a lost connection."""
CLOSE_S = 5.0

_log = logging.getLogger(__name__)

Answer = Callable[[Msg | LucidError], None]


class Connection:
    """A connection that fails fast and heals itself. Made by `open_connection`."""

    def __init__(self, url: str) -> None:
        self.url: Final = url
        self.nc: Final = Client()
        self._wire: Final = wire.install(self.nc)
        self.up: Final = asyncio.Event()
        self.closed = False
        self.breaks = 0
        """How often the connection was lost; a reader compares it to know that its pulls are gone."""
        self.on_break: Final[set[Callable[[], None]]] = set()
        self._inbox = ""
        self._numbers = itertools.count()
        self._waiting: dict[str, Answer] = {}
        self._last_error = ""
        self._refused = asyncio.Event()

    async def open(self, *, timeout_s: float, inbox_prefix: str, **options: Any) -> None:
        """Connect, or raise Unavailable (nats.unreachable), Denied (nats.denied)."""
        dialling = asyncio.ensure_future(
            self.nc.connect(
                [one.strip() for one in self.url.split(",")],
                error_cb=self._errored,
                disconnected_cb=self._broke,
                reconnected_cb=self._healed,
                closed_cb=self._ended,
                max_reconnect_attempts=-1,
                reconnect_time_wait=RECONNECT_WAIT_S,  # type: ignore[arg-type]  # any number of seconds
                ping_interval=PING_INTERVAL_S,
                pending_size=UNBOUNDED_BYTES,
                inbox_prefix=inbox_prefix,
                **options,
            )
        )
        refusal = asyncio.ensure_future(self._refused.wait())
        await asyncio.wait({dialling, refusal}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        refusal.cancel()
        if not dialling.done():
            dialling.cancel()
            with contextlib.suppress(asyncio.CancelledError, nats.errors.Error, OSError):
                await dialling
            await self.nc.close()
            why = self._last_error or f"nothing within {timeout_s:g} s"
            raise (
                errors.denied(self.url, why) if self._refused.is_set() else errors.unreachable(self.url, why)
            )
        try:
            await dialling
        except (nats.errors.Error, OSError) as error:
            raise errors.unreachable(self.url, str(error)) from error
        self._inbox = self.nc.new_inbox()
        await self.subscribe(f"{self._inbox}.*", self._answered)
        self.up.set()

    async def close(self) -> None:
        """Let go of the connection; what is under way fails as Unavailable."""
        self.closed = True
        self._fail_all()
        try:
            async with asyncio.timeout(CLOSE_S):
                await self.nc.close()
        except (TimeoutError, OSError):  # nobody takes its last words
            self._wire.abort()
        self.up.set()  # who waits for the connection must wake to learn that there is none

    async def wait_up(self) -> None:
        """Return when the connection stands (again); raise Unavailable when it was closed."""
        await self.up.wait()
        if self.closed:
            raise errors.disconnected(without_credentials(self.url))

    async def subscribe(self, subject: str, take: Callable[[Msg], None]) -> Subscription:
        """Subscribe without any limit on what is pending: each caller bounds what it asks for."""

        async def callback(message: Msg) -> None:
            take(message)

        try:
            return await self.nc.subscribe(subject, cb=callback, pending_msgs_limit=0, pending_bytes_limit=0)
        except nats.errors.Error as error:
            raise errors.disconnected(f"subscribe to {subject}") from error

    async def send(
        self, subject: str, data: Bytes, *, reply: str = "", headers: Mapping[str, str] | None = None
    ) -> None:
        """Publish without waiting for anything but the socket; raise Unavailable when it is down."""
        while len(data) > SMALL_BYTES and self._waiting_bytes() > WAITING_BYTES:
            self._wire.moved.clear()
            await self._wire.moved.wait()
        if self.closed or not self.nc.is_connected:
            raise errors.disconnected(subject)
        try:
            payload = cast(bytes, wire.Payload(data) if len(data) > SMALL_BYTES else data)
            await self.nc.publish(subject, payload, reply, dict(headers) if headers else None)
        except (nats.errors.ConnectionClosedError, nats.errors.OutboundBufferLimitError, OSError) as error:
            raise errors.disconnected(subject) from error
        except nats.errors.MaxPayloadError as error:
            raise errors.too_large(subject, len(data), self.nc.max_payload) from error

    async def request(
        self,
        subject: str,
        data: Bytes = b"",
        *,
        headers: Mapping[str, str] | None = None,
        timeout_s: float = REQUEST_TIMEOUT_S,
    ) -> Msg:
        """Return the one answer; raise Unavailable for silence, nobody there, or a lost connection."""
        answer: asyncio.Future[Msg] = asyncio.get_running_loop().create_future()

        def take(message: Msg | LucidError) -> None:
            if answer.done():
                return
            if isinstance(message, LucidError):
                answer.set_exception(message)
            else:
                answer.set_result(message)

        token = self.expect(take)
        try:
            async with asyncio.timeout(timeout_s):
                await self.send(subject, data, reply=f"{self._inbox}.{token}", headers=headers)
                message = await answer
        except TimeoutError:
            raise errors.no_answer(subject, timeout_s) from None
        finally:
            self.forget(token)
            if answer.done() and not answer.cancelled():
                answer.exception()
        if status_of(message) == "503":
            raise errors.no_responders(subject)
        return message

    def expect(self, take: Answer) -> str:
        """Register who takes the answers to a token, until `forget`; `reply_to` makes its subject."""
        token = str(next(self._numbers))
        self._waiting[token] = take
        return token

    def forget(self, token: str) -> None:
        self._waiting.pop(token, None)

    def reply_to(self, token: str) -> str:
        return f"{self._inbox}.{token}"

    def _waiting_bytes(self) -> int:
        return self._wire.waiting_bytes + self.nc.pending_data_size if self.nc.is_connected else 0

    def _answered(self, message: Msg) -> None:
        take = self._waiting.get(message.subject[len(self._inbox) + 1 :])
        if take is not None:
            take(message)

    def _fail_all(self) -> None:
        self.up.clear()
        self.breaks += 1
        waiting, self._waiting = self._waiting, {}
        for take in waiting.values():
            take(errors.disconnected("request"))
        self._wire.moved.set()
        for listener in tuple(self.on_break):
            listener()

    async def _broke(self) -> None:
        if not self.closed:
            _log.warning("nats_disconnected url=%s", without_credentials(self.url))
        self._fail_all()

    async def _ended(self) -> None:
        """The server threw us out for good (its credentials changed), or `close` was called."""
        self.closed = True
        self._fail_all()
        self.up.set()

    async def _healed(self) -> None:
        _log.info("nats_reconnected breaks=%d", self.breaks)
        self.up.set()

    async def _errored(self, error: Exception) -> None:
        self._last_error = str(error) or type(error).__name__
        if "authorization" in self._last_error.lower():
            self._refused.set()
        _log.debug("nats_error error=%s", self._last_error)


def status_of(message: Msg) -> str:
    """The status line's number of a control message; empty for a message that carries data."""
    return message.headers.get("Status", "") if message.headers and not message.data else ""
