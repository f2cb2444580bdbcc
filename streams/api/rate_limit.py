"""Bounds the requests of each caller and of each address in a minute.

1. A window slides: the share of the last minute that still counts is added to the present one.
2. Counters are in the memory of this process, at most KEYS_MOST; the oldest go first.
3. Each process counts by itself: several processes let through as many times as much.
"""

import ipaddress
import math
import time
from collections import OrderedDict
from dataclasses import dataclass

from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage, Storage
from limits.strategies import SlidingWindowCounterRateLimiter

from schemas.errors import Busy

KEYS_MOST = 100_000
IPV6_NETWORK = 64
"""Bits of an IPv6 address that one customer has: the others are theirs to choose."""


@dataclass(frozen=True, slots=True)
class Window:
    """The state of one limit after a request."""

    limit: int
    left: int
    reset_s: int

    def headers(self) -> dict[str, str]:
        return {
            "RateLimit-Limit": str(self.limit),
            "RateLimit-Remaining": str(self.left),
            "RateLimit-Reset": str(self.reset_s),
        }


class TooMany(Busy):
    """A limit of requests is reached. window: the limit that it is."""

    def __init__(self, window: Window, whose: str) -> None:
        super().__init__(
            f"{whose} may send {window.limit} requests a minute",
            code="api.rate",
            hint=f"ask again in {window.reset_s} s; RATE_LIMIT_CALLER and RATE_LIMIT_ADDRESS set the limits",
        )
        self.window = window
        self.retry_after_s = window.reset_s


class RateLimits:
    """One for each process. 0: no limit."""

    def __init__(self, a_caller: int, an_address: int) -> None:
        self._limiter = SlidingWindowCounterRateLimiter(_Counters())
        self._caller = RateLimitItemPerMinute(a_caller) if a_caller else None
        self._address = RateLimitItemPerMinute(an_address) if an_address else None

    def count_address(self, address: str) -> Window | None:
        """Count a request; None: there is no limit. Raises TooMany (api.rate)."""
        return self._count(self._address, "address", network_of(address), "one address")

    def count_caller(self, subject: str) -> Window | None:
        """Count a request; None: there is no limit. Raises TooMany (api.rate)."""
        return self._count(self._caller, "caller", subject, "one caller")

    def _count(self, limit: RateLimitItemPerMinute | None, kind: str, name: str, whose: str) -> Window | None:
        if limit is None:
            return None
        is_let_through = self._limiter.hit(limit, kind, name)
        stats = self._limiter.get_window_stats(limit, kind, name)
        window = Window(limit.amount, stats.remaining, max(1, math.ceil(stats.reset_time - time.time())))
        if not is_let_through:
            raise TooMany(window, whose)
        return window


def network_of(address: str) -> str:
    """Return the part of an address that its holder cannot choose."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped is not None:
            return str(found.ipv4_mapped)
        return str(ipaddress.ip_network((found, IPV6_NETWORK), strict=False))
    return str(found)


class _Counters(MemoryStorage):
    """The counters of `limits` without its threads, and with a bound: it looks at one key, never at all."""

    STORAGE_SCHEME = ["lucid+memory"]  # noqa: RUF012  # as the library declares it

    def __init__(self) -> None:
        Storage.__init__(self)
        self._counts: OrderedDict[str, tuple[int, float]] = OrderedDict()
        """By key: the count, and the time when it ends."""

    def incr(self, key: str, expiry: float, amount: int = 1) -> int:
        now_s = time.time()
        count, end_s = self._counts.get(key, (0, 0.0))
        if end_s <= now_s:
            count, end_s = 0, now_s + expiry
        self._counts[key] = count + amount, end_s
        self._counts.move_to_end(key)
        if len(self._counts) > KEYS_MOST:
            self._counts.popitem(last=False)
        return count + amount

    def decr(self, key: str, amount: int = 1) -> int:
        count, end_s = self._counts.get(key, (0, 0.0))
        self._counts[key] = max(count - amount, 0), end_s
        return self._counts[key][0]

    def get(self, key: str) -> int:
        count, end_s = self._counts.get(key, (0, 0.0))
        return count if end_s > time.time() else 0

    def get_expiry(self, key: str) -> float:
        return self._counts.get(key, (0, time.time()))[1]

    def clear(self, key: str) -> None:
        self._counts.pop(key, None)
