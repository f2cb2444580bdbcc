"""Limits how much readers ask for, and how closely they follow fast writers.

1. A budget belongs to one Follower, or to all followers of a MergedFollower. Their requested and queued bytes
   are bounded together. Each follower has a small reserve of its own, so that an idle stream holds little.
   The pool goes to the streams that have messages. Names and headers count, and each message for itself:
   while the reader is away, anybody can send messages without data.
2. nats-server 2.15 keeps a block of messages for 10 s after it is full, if it was read while it was written
   (no setting). At 60 MB/s that is 600 MB. A block that is first read when full is freed with its last
   message.
3. So readers may stay close behind their writers for BURST_BYTES, then at BYTES_PER_S: 370 MB in 10 s. Behind
   faster writers they keep DISTANCE_BYTES of distance in each stream. Several workers divide this pace, as
   they have one server.
4. Pure: time and sizes come in.
"""

from dataclasses import dataclass, field

BURST_BYTES = 48 << 20
BYTES_PER_S = 32e6
DISTANCE_BYTES = 16 << 20
"""Two blocks of a large stream."""
REST_S = 0.1
"""The pause between two small requests of readers that are too close behind their writers."""
LEAST_PULL_BYTES = 1280 << 10
"""A pull that is smaller than a message never brings it; the largest has 1 MiB with headers."""
MESSAGE_BYTES = 1 << 10
"""What a queued message takes beside its own bytes."""
POOL_BYTES, PULLS = 12 << 20, 3
"""For all followers of a budget, beside their reserves: three large requests under way together.

With sixteen reserves it is 32 MiB, half of what the server may owe a connection (64 MiB). Other readers of
the connection have budgets of their own. A larger pool must fit into the same sum.
"""


class Pace:
    """Counts the bytes read close behind the writers, as a leaky bucket. share: of the pace of one server."""

    def __init__(self, share: float = 1.0) -> None:
        self._burst_bytes, self._bytes_per_s = BURST_BYTES * share, BYTES_PER_S * share
        self._level = self._at_s = self._rest_until_s = 0.0

    def took(self, size: int, now_s: float) -> None:
        self._level = self._leaked(now_s) + size
        self._at_s = now_s

    def allows(self, now_s: float) -> bool:
        """Return whether a reader close behind its writer may ask for more."""
        return self._leaked(now_s) < self._burst_bytes

    def rest_s(self, now_s: float) -> float:
        """Return the seconds until the next small request of a reader that is too close."""
        return max(0.0, self._rest_until_s - now_s)

    def rests(self, now_s: float) -> None:
        """A reader that is too close has asked for a little."""
        self._rest_until_s = now_s + REST_S

    def _leaked(self, now_s: float) -> float:
        return max(0.0, self._level - (now_s - self._at_s) * self._bytes_per_s)


@dataclass(eq=False, slots=True)
class Share:
    """The part of one follower in a budget."""

    budget: "ReadBudget"
    queued_bytes: int = 0
    open_bytes: int = 0
    """Requested, and still to come."""
    has_more: bool = False
    """Messages have come since the last request."""
    behind: float = 0.0
    """About how many bytes the stream has after the last message that came."""
    _mean: float = 0.0

    @property
    def held_bytes(self) -> int:
        return self.queued_bytes + self.open_bytes

    def took(self, size: int, pending: int, now_s: float) -> None:
        """Note a message that is queued. pending: how many followed it in the stream when it was sent."""
        self.queued_bytes += MESSAGE_BYTES + size
        self._mean += (size - self._mean) / (16 if self._mean else 1)
        self.behind = pending * self._mean
        self.has_more = True
        if self.behind < DISTANCE_BYTES:
            self.budget.pace.took(size, now_s)

    def gave(self, size: int) -> None:
        """Note that a queued message was taken out."""
        self.queued_bytes -= MESSAGE_BYTES + size

    def next_pull(self, now_s: float) -> int:
        """Return the bytes that the follower asks for now; 0: it may not."""
        size = self.budget.pull_bytes(self)
        if size and self.behind - self.open_bytes < DISTANCE_BYTES and not self.budget.pace.allows(now_s):
            if self.open_bytes or self.budget.pace.rest_s(now_s):
                return 0
            self.budget.pace.rests(now_s)
            size = LEAST_PULL_BYTES
        self.has_more = self.has_more and not size
        return size


@dataclass(eq=False, slots=True)
class ReadBudget:
    """The bytes that the followers of one budget may have requested and queued together."""

    pool_bytes: int = POOL_BYTES
    pace: Pace = field(default_factory=Pace)
    shares: list[Share] = field(default_factory=list)

    def share(self) -> Share:
        """Add a follower."""
        self.shares.append(Share(self))
        return self.shares[-1]

    def pull_bytes(self, share: Share) -> int:
        """Return the size of the next request of a follower; 0: it has its part."""
        alone = len(self.shares) == 1
        reserve = 0 if alone else LEAST_PULL_BYTES
        large = max(self.pool_bytes // PULLS, LEAST_PULL_BYTES)
        others = sum(max(0, one.held_bytes - reserve) for one in self.shares if one is not share)
        left = max(self.pool_bytes, large) - others + reserve - share.held_bytes
        if (alone or share.has_more) and left >= large:
            return large
        return 0 if share.held_bytes else LEAST_PULL_BYTES
