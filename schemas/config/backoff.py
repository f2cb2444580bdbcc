"""Says how long a caller waits after its n-th failure in a row before it tries again.

1. The delay doubles with each failure, up to `most_s`.
2. `jitter` is the share of the delay that is random: callers that failed together do not return together.
"""

import random
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Backoff:
    """Delays in seconds; jitter from 0 (none) to 1 (the whole delay)."""

    first_s: float
    most_s: float
    jitter: float = 0.0

    def delay_s(self, failures: int) -> float:
        """The delay after `failures` failures, counted from 1."""
        delay_s = min(self.most_s, self.first_s * 2.0 ** min(failures - 1, 40))
        return delay_s * random.uniform(1 - self.jitter, 1) if self.jitter else delay_s
