"""What the logs of hosts promise, against a real server."""

import asyncio

import pytest

from infra.jetstream import Jet
from schemas.errors import RefusedByState
from streams.event_store import topology
from streams.event_store.host_counters import HostCounters, host_counters
from streams.event_store.host_log import HostLog
from tests.support.pipeline.conducted import requested

AT_ONCE = 150


async def test_however_many_sessions_of_one_host_begin_at_once_none_is_in_anothers_way(
    jet: Jet,
) -> None:
    """Breaks: the desks of a whole floor start at nine on a slow disk, and some of them are not recorded."""
    await topology.declare(jet, 2 << 30)
    admitting = HostLog(jet)
    await asyncio.gather(*(admitting.admit(requested(f"desk-{n:03}", n)) for n in range(1, AT_ONCE + 1)))


async def test_whether_a_counter_is_free_is_one_look_however_many_were_used(jet: Jet) -> None:
    """Breaks: the ten thousandth session of a host takes seconds to begin."""
    await topology.declare(jet, 2 << 30)
    looks: list[str] = []

    class Counting:
        def __getattr__(self, name: str) -> object:
            looks.append(name)
            return getattr(jet, name)

    for number in range(1, 30):
        looks.clear()
        await HostLog(Counting()).admit(requested(f"desk-{number}", number))  # type: ignore[arg-type]
    assert looks == ["last", "append"]


async def test_a_counter_that_was_used_is_refused_and_a_repeated_request_is_no_second_one(jet: Jet) -> None:
    """Breaks: two sessions with one uid share files and keys; or a host that asks again is refused."""
    await topology.declare(jet, 2 << 30)
    hosts = HostLog(jet)
    for number in (5, 3, 5, 3):
        await hosts.admit(requested(f"desk-{number}", number))
    for counter in (5, 3):
        with pytest.raises(RefusedByState, match=r"host\.counter"):
            await hosts.admit(requested("desk-6", counter))
    await hosts.admit(requested("desk-4", 4))


async def test_a_hole_in_the_counters_of_a_host_is_a_session_that_is_missing(jet: Jet) -> None:
    """Breaks: a host that keeps sessions back looks like one that had none."""
    await topology.declare(jet, 2 << 30)
    hosts, key = HostLog(jet), requested("desk-1", 1).host_key
    assert await host_counters(jet, key) == HostCounters(0, 0, ())
    for number in (9, 2, 4, 5):
        await hosts.admit(requested(f"desk-{number}", number))
    await jet.append(f"lucid.counters.{key.hex()}.x", b"of a stranger", 0)
    found = await host_counters(jet, key)
    assert (found.sessions, found.last, found.missing_count) == (4, 9, 5)
    assert found.missing == ((1, 1), (3, 3), (6, 8))
    for number in (1, 3, 6, 7, 8):
        await hosts.admit(requested(f"desk-{number}", number))
    assert await host_counters(jet, key) == HostCounters(9, 9, ())
    assert await host_counters(jet, bytes(32)) == HostCounters(0, 0, ()), "another key has its own"


async def test_of_two_services_that_admit_one_counter_one_gives_way(jet: Jet) -> None:
    """Breaks: a copied host folder gets two sessions with one uid when both ask at once."""
    await topology.declare(jet, 2 << 30)
    await HostLog(jet).admit(requested("desk-1", 1))
    both = [HostLog(jet).admit(requested(f"desk-{n}", 2)) for n in range(8)]
    refused = [one for one in await asyncio.gather(*both, return_exceptions=True) if one is not None]
    assert len(refused) == 7
    assert all(isinstance(one, RefusedByState) for one in refused)
