"""Holds one connection to NATS: requests and answers, reconnects, refusals.

1. It reconnects for ever. While it is down, every request fails at once as Unavailable. So does each one that
   was under way at the break: waiting for its timeout would stall everything behind it. The server may have
   carried out such a request.
2. One inbox serves all requests; an answer finds its request by the last token of its subject.
3. A forbidden request fails at once as Denied: the server sends no answer to it.
4. Senders wait only here, for room in the socket. Our own commands go past nats-py's queue and its task.
"""

import asyncio
import itertools
import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

import nats.errors
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from infra.jetstream import errors
from infra.jetstream.client import Client, Failed, Where
from infra.jetstream.direct_callbacks import direct
from infra.jetstream.publish_command import SMALL_BYTES, publish_command
from schemas.buffers import Bytes
from schemas.config.logs import logger
from schemas.errors import LucidError

CONNECT_TIMEOUT_S = 5.0
REQUEST_TIMEOUT_S = 10.0
WAITING_BYTES = 4 << 20
"""Above it a sender waits here, where a lost connection wakes it. Acks, pulls and answers (SMALL_BYTES) never
wait: they are few, and others wait for them."""
UNBOUNDED_BYTES = 1 << 40
"""Disables nats-py's own bound: at it, a subscribe would sleep through a lost connection."""
CLOSE_S = 5.0
_FORBIDDEN = re.compile(r'permissions violation for (?P<verb>publish|subscription) to "(?P<subject>[^"]*)"')
"""nats-py gives the text in lower case."""

_log = logger(__name__)

Answer = Callable[[Msg | LucidError], None]


class Connection:
    """A connection that fails fast and reconnects by itself."""

    def __init__(self, where: Where) -> None:
        self.nc: Final = Client(where)
        self._wire: Final = self.nc.wire
        self.up: Final = asyncio.Event()
        self.closed = False
        self.breaks = 0
        """How often the connection was lost."""
        self.on_break: Final[set[Callable[[], None]]] = set()
        self._inbox = ""
        self._numbers = itertools.count()
        self._waiting: dict[str, Answer] = {}
        self._asked: dict[str, str] = {}
        """Token → subject of a request; a refusal names it."""
        self.denied: LucidError | None = None
        """Why no answer can arrive; None: it can."""
        self._last: Exception | None = None
        self._final: dict[str, LucidError] = {}
        """Address → why no later try there can succeed."""
        self._refused = asyncio.Event()

    @property
    def url(self) -> str:
        """The current URLs, credentials included: not for logs."""
        return self.nc.urls

    async def open(self, *, timeout_s: float, inbox_prefix: str, name: str) -> None:
        """Connect. Raises Unavailable, Denied (both nats.*), Misuse (config.nats_url)."""
        dialling = asyncio.ensure_future(
            self.nc.dial(
                name=name,
                error_cb=self._errored,
                disconnected_cb=self._broke,
                reconnected_cb=self._healed,
                closed_cb=self._ended,
                pending_size=UNBOUNDED_BYTES,
                inbox_prefix=inbox_prefix,
            )
        )
        refusal = asyncio.ensure_future(self._refused.wait())
        try:
            await asyncio.wait({dialling, refusal}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
            if not dialling.done():
                raise self._unopened(timeout_s)
            await dialling
            self._inbox = self.nc.new_inbox()
            await self.subscribe(f"{self._inbox}.*", self._answered)
        except BaseException as error:
            await self._give_up(dialling)
            if isinstance(error, (nats.errors.Error, OSError)):
                raise errors.unreachable(self.nc.shown, str(error)) from error
            raise
        finally:
            refusal.cancel()
        self._final.clear()
        self.up.set()

    def _unopened(self, timeout_s: float) -> LucidError:
        """Return why there is no connection; a final reason goes before one that may pass."""
        for error in self._final.values():
            return error
        if isinstance(self._last, Failed):
            return self._last.error
        why = str(self._last or "") or f"nothing within {timeout_s:g} s"
        return errors.unreachable(self.nc.shown, why)

    async def _give_up(self, dialling: "asyncio.Future[None]") -> None:
        dialling.cancel()
        await asyncio.gather(dialling, return_exceptions=True)
        await self.close()
        self._wire.abort()

    async def close(self) -> None:
        """Close the connection; requests under way fail as Unavailable."""
        self.closed = True
        self._fail_all()
        try:
            async with asyncio.timeout(CLOSE_S):
                if self.nc.is_connected:
                    await self._wire.drain()
        except (TimeoutError, OSError):  # the server reads no more
            self._wire.abort()
        try:
            async with asyncio.timeout(CLOSE_S):
                await self.nc.close()
        except (TimeoutError, OSError):  # the server reads no more
            self._wire.abort()
        self.up.set()  # wakes all that wait for the connection: there is none

    async def wait_up(self) -> None:
        """Return when the connection stands (again). Raises Unavailable: it was closed."""
        await self.up.wait()
        if self.closed:
            raise errors.disconnected(self.nc.shown)

    async def subscribe(self, subject: str, take: Callable[[Msg], None]) -> Subscription:
        """Subscribe; the parser calls `take` itself (direct_callbacks). Each caller bounds its requests."""
        try:
            return await self.nc.subscribe(subject, cb=direct(take))
        except nats.errors.Error as error:
            raise errors.disconnected(f"subscribe to {subject}") from error

    async def send(
        self, subject: str, data: Bytes, *, reply: str = "", headers: Mapping[str, str] | None = None
    ) -> None:
        """Publish; wait only for the socket. Raises Unavailable: the connection is down."""
        if self._must_wait(data):
            await self._wait_for_room(data)
        self._post(subject, data, reply, headers)

    async def request(
        self,
        subject: str,
        data: Bytes = b"",
        *,
        headers: Mapping[str, str] | None = None,
        timeout_s: float = REQUEST_TIMEOUT_S,
    ) -> Msg:
        """Return the one answer. Raises Unavailable: silence, no responder, or a lost connection."""
        if self.denied is not None:
            raise self.denied
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Msg] = loop.create_future()
        token = self.expect(partial(_settle, answer))
        self._asked[token] = subject
        timer = loop.call_later(timeout_s, _expire, answer)  # half the cost of a timeout context
        try:
            if self._must_wait(data):
                async with asyncio.timeout(timeout_s):
                    await self._wait_for_room(data)
            self._post(subject, data, self.reply_to(token), headers)
            message = await answer
        except TimeoutError:
            raise errors.no_answer(subject, timeout_s) from None
        finally:
            timer.cancel()
            self.forget(token)
            if answer.done() and not answer.cancelled():
                answer.exception()
        if status_of(message) == "503":
            raise errors.no_responders(subject)
        return message

    def expect(self, take: Answer) -> str:
        """Register a receiver of answers until `forget`; return its token. `reply_to` makes the subject."""
        token = str(next(self._numbers))
        self._waiting[token] = take
        return token

    def forget(self, token: str) -> None:
        self._waiting.pop(token, None)
        self._asked.pop(token, None)

    def reply_to(self, token: str) -> str:
        return f"{self._inbox}.{token}"

    def _must_wait(self, data: Bytes) -> bool:
        return len(data) > SMALL_BYTES and self._wire.waiting_bytes > WAITING_BYTES and self.nc.is_connected

    async def _wait_for_room(self, data: Bytes) -> None:
        while self._must_wait(data):
            self._wire.moved.clear()
            await self._wire.moved.wait()

    def _post(self, subject: str, data: Bytes, reply: str, headers: Mapping[str, str] | None) -> None:
        """Publish without waiting. Raises as `send`."""
        if self.closed or not self.nc.is_connected:
            raise errors.disconnected(subject)
        if len(data) > self.nc.max_payload:
            raise errors.too_large(subject, len(data), self.nc.max_payload)
        self.nc.put(publish_command(subject, data, reply, headers))

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
            _log.warning("nats_disconnected", url=self.nc.shown)
        self._fail_all()

    async def _ended(self) -> None:
        """Only `close` leads here: after anything that a server does, the client reconnects."""
        self.closed = True
        self._fail_all()
        self.up.set()

    async def _healed(self) -> None:
        _log.info("nats_reconnected", breaks=self.breaks)
        self.up.set()

    async def _errored(self, error: Exception) -> None:
        _log.debug("nats_error", error=error)
        self._last = error
        if isinstance(error, Failed) and error.final:
            self._final[error.address] = error.error
            if self._final.keys() >= {address.shown for address in self.nc.addresses}:
                self._refused.set()
        if found := _FORBIDDEN.search(str(error)):
            self._forbidden(found["verb"] == "publish", found["subject"])

    def _forbidden(self, publish: bool, subject: str) -> None:
        """Fail the requests that will get no answer."""
        if publish:
            for token in [token for token, asked in self._asked.items() if asked.lower() == subject]:
                self._waiting[token](errors.forbidden(f"publish to {subject}"))
        elif self._inbox and subject.startswith(self._inbox.lower()):
            self.denied = errors.forbidden(f"subscribe to {subject}, the inbox for answers")
            for take in tuple(self._waiting.values()):
                take(self.denied)


def _settle(answer: "asyncio.Future[Msg]", message: Msg | LucidError) -> None:
    if answer.done():
        return
    if isinstance(message, LucidError):
        answer.set_exception(message)
    else:
        answer.set_result(message)


def _expire(answer: "asyncio.Future[Msg]") -> None:
    if not answer.done():
        answer.set_exception(TimeoutError())


def status_of(message: Msg) -> str:
    """Return the status of a control message; empty: the message carries data."""
    return message.headers.get("Status", "") if message.headers and not message.data else ""
