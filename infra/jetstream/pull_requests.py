"""Tracks the pull requests of one reader: which are open, how much they may still bring, signs of life.

1. The server serves open requests in turn, message by message, so requests of one size end together. A reader
   that wants no pause asks again when a part of the messages has come, not when a request ends.
2. Each request has a reply subject of its own below one inbox. Messages come under their own subjects,
   statuses under the reply subject: a status names the request that it ends.
3. A request ends by its count, or by a status that says how many messages it did not bring
   (Nats-Pending-Messages). Without that subtraction slots leak.
4. Silence for three heartbeats while a request is open means that the consumer, or the request, is gone: a
   deleted consumer does not answer a request that came too late.

Source: ADR-13, ADR-37.
"""

import asyncio
import itertools
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from infra.jetstream.connection import Connection, status_of

SILENT_HEARTBEATS = 3
_HEADER_FRAME = len(b"NATS/1.0\r\n\r\n")
_ENDED_IN_ORDER = ("request timeout", "message size exceeds maxbytes", "no messages", "batch completed")


@dataclass(frozen=True, slots=True)
class PullTimes:
    """How long a request is open, and how often the server shows that it is."""

    expires_s: float = 30.0
    heartbeat_s: float = 3.0


PULL_TIMES = PullTimes()


@dataclass(frozen=True, slots=True)
class PullCallbacks:
    """The functions of one reader that its pull requests call."""

    message: Callable[[Msg], None]
    lost: Callable[[str], None]
    """All requests ended, with the reason."""
    ended: Callable[[], None]
    """One request ended in order."""
    beat: Callable[[int], None] = lambda last_delivery: None
    """A heartbeat, with the number of the last delivery."""


class PullRequests:
    """The open pull requests of one reader."""

    def __init__(
        self,
        conn: Connection,
        stream: str,
        callbacks: PullCallbacks,
        times: PullTimes,
    ) -> None:
        self.outstanding = 0
        """Messages that the open requests may still bring."""
        self.outstanding_bytes = 0
        """Bytes that the open requests may still bring; only requests with a bound count."""
        self.open: Final[dict[str, int]] = {}
        self._conn, self._stream = conn, stream
        self._on, self._times = callbacks, times
        self._inbox = conn.nc.new_inbox() + "."
        self._numbers = itertools.count()
        self._last_sign_s = 0.0
        self._subscription: Subscription | None = None

    async def start(self) -> None:
        """Listen; a second call does nothing."""
        if self._subscription is None:
            self._subscription = await self._conn.subscribe(self._inbox + "*", self._received)

    async def ask(self, consumer: str, count: int, max_bytes: int = 0) -> None:
        """Open a request for `count` messages of together at most `max_bytes` (0: any)."""
        token = str(next(self._numbers))
        question: dict[str, int] = {
            "batch": count,
            "expires": int(self._times.expires_s * 1e9),
            "idle_heartbeat": int(self._times.heartbeat_s * 1e9),
        }
        if max_bytes:
            question["max_bytes"] = max_bytes
        self.open[token] = count
        self.outstanding += count
        self.outstanding_bytes += max_bytes
        self._last_sign_s = max(self._last_sign_s, asyncio.get_running_loop().time())
        try:
            await self._conn.send(
                f"$JS.API.CONSUMER.MSG.NEXT.{self._stream}.{consumer}",
                json.dumps(question).encode(),
                reply=self._inbox + token,
            )
        except BaseException:
            self._end(token, count, max_bytes)
            raise

    def silent_for_s(self) -> float:
        """Return the seconds without a sign of life while a request is open; 0: none is open."""
        return asyncio.get_running_loop().time() - self._last_sign_s if self.open else 0.0

    @property
    def patience_s(self) -> float:
        return SILENT_HEARTBEATS * self._times.heartbeat_s

    def forget(self) -> None:
        """Drop all open requests; messages that still arrive from them are delivered, but not counted."""
        self.open.clear()
        self.outstanding = self.outstanding_bytes = 0

    async def stop(self, *, drain: bool) -> None:
        """End all requests. drain: messages that the server already sent still reach the reader."""
        subscription, self._subscription = self._subscription, None
        if subscription is None or self._conn.nc.is_closed:
            return
        if drain and self._conn.nc.is_connected:
            await subscription.drain()  # type: ignore[no-untyped-call]
        else:
            await subscription.unsubscribe()
        self.forget()

    def _received(self, message: Msg) -> None:
        self._last_sign_s = asyncio.get_running_loop().time()
        if not message.subject.startswith(self._inbox):
            self.outstanding = max(0, self.outstanding - 1)
            self.outstanding_bytes = max(0, self.outstanding_bytes - wire_size(message))
            if not self.outstanding:
                self.forget()
            self._on.message(message)
            return
        status, headers = status_of(message), message.headers or {}
        token = message.subject[len(self._inbox) :]
        text = headers.get("Description", "")
        if status == "100":
            if "Nats-Last-Consumer" in headers:
                self._on.beat(int(headers["Nats-Last-Consumer"]))
        elif token in self.open:
            if status != "503" and text.lower().startswith(_ENDED_IN_ORDER):
                unbrought = (int(headers.get(f"Nats-Pending-{unit}", 0)) for unit in ("Messages", "Bytes"))
                self._end(token, *unbrought)
                self._on.ended()
            else:
                self.forget()
                self._on.lost(f"{status} {text}".strip())

    def _end(self, token: str, unbrought: int, unbrought_bytes: int) -> None:
        self.open.pop(token, None)
        self.outstanding = max(0, self.outstanding - unbrought)
        self.outstanding_bytes = max(0, self.outstanding_bytes - unbrought_bytes)
        if not self.open:
            self.forget()


def wire_size(message: Msg) -> int:
    """Return the bytes that the server counts against `max_bytes`: subject, ack subject, headers, data."""
    headers = message.headers
    block = _HEADER_FRAME + sum(len(name) + len(text) + 4 for name, text in headers.items()) if headers else 0
    return len(message.subject) + len(message.reply) + block + len(message.data)
