"""Bounds the traces that one host may have kept: the hosts decide, and one may sample everything.

1. A host may have BURST traces at once, and CHUNKS_PER_S later on: 320 MB/s in chunks of the usual size.
2. It is a bound of each worker. An honest host below it has every trace that it sampled.
"""

import time
from collections.abc import Callable

CHUNKS_PER_S, BURST = 32.0, 256
HOSTS_MOST = 1024
"""Before one more is remembered, hosts with their whole burst are forgotten: nothing changes for them."""


class TraceQuota:
    """A token bucket for each host. Used from one event loop only."""

    def __init__(
        self, left_out: Callable[[], None] = lambda: None, clock_s: Callable[[], float] = time.monotonic
    ) -> None:
        """left_out: called for each trace beyond the bound."""
        self._left_out, self._clock_s = left_out, clock_s
        self._full_s: dict[str, float] = {}
        """By host, the time at which its burst is whole again."""

    def take(self, host: str) -> bool:
        """Whether one more trace of the host may be kept."""
        now_s = self._clock_s()
        full_s = max(self._full_s.get(host, now_s), now_s) + 1 / CHUNKS_PER_S
        if full_s - now_s > BURST / CHUNKS_PER_S:
            self._left_out()
            return False
        if len(self._full_s) >= HOSTS_MOST and host not in self._full_s:
            self._full_s = {name: at_s for name, at_s in self._full_s.items() if at_s > now_s}
        self._full_s[host] = full_s
        return True
