"""Owns the pull requests to one consumer: which are open, what they may still bring, and signs of life.

1. The server serves open requests in turn, message by message: those of one size end together, so that
   whoever wants no pause asks anew when part of what is under way has come, not when a request ends.
2. Each request has a reply subject of its own below one inbox; messages come under their own subjects,
   statuses under the reply subject. So a status tells exactly which request it ends.
3. A request ends by its count, or by a status that says how many it did not bring (Nats-Pending-Messages);
   without that subtraction slots leak.
4. Silence for three heartbeats while a request is open means that the consumer, or the request, is gone:
   a deleted consumer says nothing to a request that came too late.

Source: ADR-13, ADR-37.
"""

import asyncio
import itertools
import json
from collections.abc import Callable
from typing import Final

from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from infra.jetstream.connection import Connection, status_of

HEARTBEAT_S, EXPIRES_S = 3.0, 30.0
SILENT_HEARTBEATS = 3
_HEADER_FRAME = len(b"NATS/1.0\r\n\r\n")
_ENDED_IN_ORDER = ("request timeout", "message size exceeds maxbytes", "no messages", "batch completed")


class Pulls:
    """The open pull requests of one reader. `take` gets each message, `lost` the reason when all ended."""

    def __init__(
        self,
        conn: Connection,
        stream: str,
        *,
        take: Callable[[Msg], None],
        lost: Callable[[str], None],
        ended: Callable[[], None],
        beat: Callable[[int], None] = lambda last_delivery: None,
        expires_s: float = EXPIRES_S,
        heartbeat_s: float = HEARTBEAT_S,
    ) -> None:
        self.outstanding = 0
        """Messages that the open requests may still bring."""
        self.outstanding_bytes = 0
        """Of the requests that were bounded by bytes, what they may still bring."""
        self.open: Final[dict[str, int]] = {}
        self._conn, self._stream = conn, stream
        self._take, self._lost, self._ended, self._beat = take, lost, ended, beat
        self._expires_s, self._heartbeat_s = expires_s, heartbeat_s
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
            "expires": int(self._expires_s * 1e9),
            "idle_heartbeat": int(self._heartbeat_s * 1e9),
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
        """How long no sign came although a request is open; 0 when none is."""
        return asyncio.get_running_loop().time() - self._last_sign_s if self.open else 0.0

    @property
    def patience_s(self) -> float:
        return SILENT_HEARTBEATS * self._heartbeat_s

    def forget(self) -> None:
        """All open requests are gone; what still comes from them is delivered, but counts for none."""
        self.open.clear()
        self.outstanding = self.outstanding_bytes = 0

    async def stop(self, *, drain: bool) -> None:
        """End all requests. drain: what the server already sent still reaches `take`."""
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
            self._take(message)
            return
        status, headers = status_of(message), message.headers or {}
        token = message.subject[len(self._inbox) :]
        text = headers.get("Description", "")
        if status == "100":
            if "Nats-Last-Consumer" in headers:
                self._beat(int(headers["Nats-Last-Consumer"]))
        elif token in self.open:
            if status != "503" and text.lower().startswith(_ENDED_IN_ORDER):
                unbrought = (int(headers.get(f"Nats-Pending-{what}", 0)) for what in ("Messages", "Bytes"))
                self._end(token, *unbrought)
                self._ended()
            else:
                self.forget()
                self._lost(f"{status} {text}".strip())

    def _end(self, token: str, unbrought: int, unbrought_bytes: int) -> None:
        self.open.pop(token, None)
        self.outstanding = max(0, self.outstanding - unbrought)
        self.outstanding_bytes = max(0, self.outstanding_bytes - unbrought_bytes)
        if not self.open:
            self.forget()


def wire_size(message: Msg) -> int:
    """What the server counts of a message against `max_bytes`: subject, ack subject, headers, data."""
    headers = message.headers
    block = _HEADER_FRAME + sum(len(name) + len(text) + 4 for name, text in headers.items()) if headers else 0
    return len(message.subject) + len(message.reply) + block + len(message.data)
