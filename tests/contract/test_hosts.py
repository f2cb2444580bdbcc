"""What the logs of hosts promise, against a real server."""

import asyncio

import pytest
from conducted import requested

from infra.jetstream import Jet
from streams import hosts, topology
from streams.hosts import Hosts

AT_ONCE = 150


async def test_however_many_sessions_of_one_host_begin_at_once_none_is_in_anothers_way(
    jet: Jet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks: the desks of a whole floor start at nine on a slow disk, and some of them are not recorded."""
    monkeypatch.setattr(hosts, "TRIES", 1)
    await topology.declare(jet, 2 << 30)
    admitting = Hosts(jet)
    await asyncio.gather(*(admitting.admit(requested(f"desk-{n:03}", n)) for n in range(1, AT_ONCE + 1)))
