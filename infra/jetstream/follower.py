"""Follows a stream in order without acks: every message from a sequence on, once, with no hole.

1. It reads by a short-lived consumer of the server, without acks. The server numbers its deliveries without
   holes. A hole in them, a heartbeat with a higher number, silence, or a lost connection ends that consumer.
   A new one begins at the sequence after the last queued message, and the caller gets a Discontinuity.
2. Requested and queued bytes are bounded (read_pace): a slow reader slows the server, and the server's 64 MiB
   per connection are never reached. Close behind a fast writer it asks for little.
3. One task reads. Its position is the caller's checkpoint: neither this module nor the server keeps one.
4. Alone, it works while its caller waits in it. One of several (merged_follower) works in a task of its own.
"""

import asyncio
import contextlib
import json
import secrets
from collections import deque
from collections.abc import Callable, Sequence

from nats.aio.msg import Msg

from infra.jetstream import decode, errors
from infra.jetstream.connection import Connection
from infra.jetstream.pull_requests import PullCallbacks, PullRequests, PullTimes
from infra.jetstream.read_pace import ReadBudget, Share
from schemas.config.backoff import Backoff
from schemas.config.logs import logger
from schemas.errors import LucidError, NotFound, Unavailable
from schemas.ports.messages import Discontinuity, Message

PULL_MESSAGES = 4096
HEARTBEAT_S = 2.0
SHARED_EXPIRES_S = 10.0
"""When a request of one of several streams ends: an idle stream gives its part of the budget back."""
IDLE_CONSUMER_S = 300
RETRY = Backoff(0.1, 2.0)
"""Between two tries to read on, while nothing is queued."""
FAREWELL_S = 2.0
"""How long a delete may take. The server removes a consumer that is left over after IDLE_CONSUMER_S."""

_log = logger(__name__)


class Follower:
    """The port Follower, over one consumer after another."""

    def __init__(
        self,
        conn: Connection,
        stream: str,
        filters: Sequence[str],
        from_seq: int,
        share: Share | None = None,
        arrived: Callable[[], None] | None = None,
    ) -> None:
        """share, arrived: of a reader of several streams; it calls `queued` after `arrived` was called."""
        self.next_seq = max(from_seq, 1)
        """The first sequence that is not in the queue yet."""
        self._conn, self._stream, self._filters = conn, stream, tuple(filters)
        self._queue: deque[Message | Discontinuity] = deque()
        self._share = share or ReadBudget().share()
        self._wake = asyncio.Event()
        self._arrived = arrived or self._wake.set
        self._times = PullTimes(heartbeat_s=HEARTBEAT_S)
        if share is not None:
            self._times = PullTimes(SHARED_EXPIRES_S, HEARTBEAT_S)
        self._broken = "begin"
        """Why a new consumer is needed; empty: the present one reads."""
        self._begun = False
        self._closed = False
        self._consumer = ""
        self._deliveries = 0
        self._pulls: PullRequests | None = None
        conn.on_break.add(self._on_break)

    def __aiter__(self) -> "Follower":
        return self

    async def __anext__(self) -> Message | Discontinuity:
        await self.read_on(returns=True)
        if not self._queue:
            raise StopAsyncIteration
        item = self._queue.popleft()
        if isinstance(item, Message):
            self._share.gave(item.size)
        return item

    async def batch(self) -> list[Message | Discontinuity]:
        await self.read_on(returns=True)
        items = self.queued()
        await self.ask()
        return items

    def queued(self) -> list[Message | Discontinuity]:
        """Take all items that have arrived. Call `ask` next."""
        items = list(self._queue)
        self._queue.clear()
        self._share.queued_bytes = 0
        return items

    async def ask(self) -> None:
        """Ask for more, if that is allowed now."""
        if self._pulls is not None and not self._broken:
            with contextlib.suppress(Unavailable):
                await self._ask(self._pulls)
            if not self._pulls.open:
                self._wake.set()

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._conn.on_break.discard(self._on_break)
        self._queue.clear()
        self._wake.set()
        await self._discard()

    async def read_on(self, *, returns: bool = False) -> None:
        """Keep a consumer and its requests until the follower is closed. returns: or something is queued."""
        failures = 0
        while not self._closed:
            try:
                if self._broken:
                    await self._begin()
                assert self._pulls is not None
                await self._ask(self._pulls)
                failures = 0
            except (Unavailable, NotFound) as error:
                # An absent stream is the caller's mistake at first; later it is an outage.
                if self._conn.closed or (isinstance(error, NotFound) and not self._begun):
                    raise
                if not (returns and self._queue):
                    _log.info("follow_retries", stream=self._stream, code=error.code)
                    failures += 1
                    await asyncio.sleep(RETRY.delay_s(failures))
                    continue
            if returns and self._queue:
                return
            await self._wait(self._pulls, returns)

    async def _begin(self) -> None:
        """Make a new consumer at `next_seq`. After a crash here the server removes it by itself."""
        await self._conn.wait_up()
        await self._discard()
        reason, self._broken = self._broken, ""
        consumer = f"follow-{secrets.token_hex(8)}"
        pulls = PullRequests(
            self._conn,
            self._stream,
            PullCallbacks(
                message=lambda message: self._take(consumer, message),
                lost=lambda why: self._break(consumer, why),
                ended=self._wake.set,
                beat=lambda last: self._beat(consumer, last),
            ),
            self._times,
        )
        self._consumer, self._deliveries = consumer, 0
        try:
            await pulls.start()
            await self._create(consumer)
        except BaseException:
            self._broken = reason
            raise
        finally:
            # Not before: `ask` may come at any time, and a request to a consumer that is not there is lost.
            self._pulls = pulls
        if self._begun:
            _log.info("follow_resumed", stream=self._stream, seq=self.next_seq, why=reason)
            self._queue.append(Discontinuity(reason, self.next_seq, self._stream))
            self._arrived()
        self._begun = True

    async def _create(self, consumer: str) -> None:
        config = {
            "name": consumer,
            "ack_policy": "none",
            "deliver_policy": "by_start_sequence",
            "opt_start_seq": self.next_seq,
            "filter_subjects": list(self._filters),
            "inactive_threshold": IDLE_CONSUMER_S * 1_000_000_000,
            "mem_storage": True,
            "num_replicas": 1,
        }
        body = {"stream_name": self._stream, "config": config, "action": "create"}
        subject = f"$JS.API.CONSUMER.CREATE.{self._stream}.{consumer}"
        answer = json.loads((await self._conn.request(subject, json.dumps(body).encode())).data)
        if "error" in answer:
            raise errors.from_answer(answer["error"], f"follow {self._stream}")

    async def _ask(self, pulls: PullRequests) -> None:
        while not self._broken and pulls is self._pulls:  # both may change while this asks
            self._share.open_bytes = pulls.outstanding_bytes
            size = self._share.next_pull(asyncio.get_running_loop().time())
            if not size:
                return
            await pulls.ask(self._consumer, PULL_MESSAGES, size)

    async def _wait(self, pulls: PullRequests | None, returns: bool) -> None:
        """Wait for a message, a break or long silence; at least one heartbeat, as the loop may lag."""
        self._wake.clear()
        if (returns and self._queue) or self._broken or self._closed or pulls is None:
            return
        rest_s: float | None = None  # until the queued items are taken
        if pulls.open:
            rest_s = max(pulls.patience_s - pulls.silent_for_s(), HEARTBEAT_S)
        elif not self._queue:
            rest_s = self._share.budget.pace.rest_s(asyncio.get_running_loop().time())
        try:
            async with asyncio.timeout(rest_s):
                await self._wake.wait()
        except TimeoutError:
            if pulls.silent_for_s() >= pulls.patience_s:
                self._break(self._consumer, "no heartbeat")

    async def _discard(self) -> None:
        pulls, self._pulls = self._pulls, None
        self._share.open_bytes = 0
        if pulls is None:
            return
        with contextlib.suppress(LucidError, Exception):
            await pulls.stop(drain=False)
            await self._conn.request(
                f"$JS.API.CONSUMER.DELETE.{self._stream}.{self._consumer}", timeout_s=FAREWELL_S
            )

    def _take(self, consumer: str, message: Msg) -> None:
        if consumer != self._consumer or self._broken or self._closed:
            return
        decoded, number = decode.delivered(message)
        if number != self._deliveries + 1 or decoded.seq < self.next_seq:
            self._break(consumer, f"delivery {number} after {self._deliveries}")
            return
        self._deliveries = number
        self.next_seq = decoded.seq + 1
        self._queue.append(decoded)
        if self._pulls is not None:
            self._share.open_bytes = self._pulls.outstanding_bytes
        self._share.took(decoded.size, decoded.pending, asyncio.get_running_loop().time())
        self._arrived()

    def _beat(self, consumer: str, last_delivery: int) -> None:
        if last_delivery > self._deliveries:
            self._break(consumer, f"delivery {last_delivery} never came")

    def _break(self, consumer: str, reason: str) -> None:
        if consumer == self._consumer and not self._broken:
            self._broken = reason
            self._wake.set()

    def _on_break(self) -> None:
        self._break(self._consumer, "disconnected")
