"""Chooses the hosts that are measured by name, so that nobody fills Prometheus with made-up host names.

1. A host that is shown stays shown while it records: its line has no holes.
2. At most HOSTS_MOST are shown at once, and at most NAMES_MOST names in NAMES_S. Hosts that were silent
   longest come first.
3. All further hosts are one row, OTHERS, with the longest silence of them.
"""

from collections.abc import Callable, Mapping

from schemas.ports.metrics import Rows

HOSTS_MOST, NAMES_MOST, NAMES_S = 128, 512, 3600.0
OTHERS = "(others)"
"""No host has this name (schemas.subjects.HOST_ID)."""


class ShownHosts:
    """One for each conductor. clock_s: a monotonic time."""

    def __init__(self, clock_s: Callable[[], float]) -> None:
        self._clock_s = clock_s
        self._named_s: dict[str, float] = {}
        """By name, when it was shown last."""

    def rows(self, ages_s: Mapping[str, float]) -> Rows:
        """Return the rows of these hosts; ages_s: since each was heard."""
        now_s = self._clock_s()
        self._named_s = {name: at_s for name, at_s in self._named_s.items() if at_s > now_s - NAMES_S}
        oldest = sorted(ages_s, key=lambda host: -ages_s[host])
        shown = [host for host in oldest if host in self._named_s][:HOSTS_MOST]
        new = [host for host in oldest if host not in self._named_s]
        shown += new[: max(min(HOSTS_MOST - len(shown), NAMES_MOST - len(self._named_s)), 0)]
        self._named_s.update(dict.fromkeys(shown, now_s))
        others = ages_s.keys() - set(shown)
        rows: dict[tuple[str, ...], float] = {(host,): max(ages_s[host], 0.0) for host in shown}
        if others:
            rows[OTHERS,] = max(ages_s[host] for host in others)
        return rows
