"""An Idempotency-Key belongs to one request: for several processes, and after a crash before the command."""

import asyncio

import pytest

from schemas import subjects
from schemas.errors import RefusedByState
from schemas.ports import Jet
from streams.event_store import topology
from streams.event_store.request_keys import RequestKeys

KEY = bytes(range(32))


async def claimed(keys: RequestKeys, name: str, content: bytes) -> bool:
    try:
        await keys.claim(name, content)
    except RefusedByState:
        return False
    return True


async def test_of_two_requests_with_one_key_one_is_refused(jet: Jet) -> None:
    """Breaks: one key carries out two requests, and its caller believes it was one."""
    await topology.declare(jet, 1 << 30)
    processes = [RequestKeys(jet, KEY) for _ in range(4)]
    for number in range(8):
        contents = [b"one", b"two", b"one", b"two"]
        pairs = zip(processes, contents, strict=True)
        found = await asyncio.gather(*(claimed(keys, f"{number:032x}", content) for keys, content in pairs))
        assert found in ([True, False] * 2, [False, True] * 2)


async def test_a_claimed_request_goes_on_after_a_crash(jet: Jet) -> None:
    """Breaks: a process dies between the claim and the command, and the same request is refused for a day."""
    await topology.declare(jet, 1 << 30)
    await RequestKeys(jet, KEY).claim("a" * 32, b"wish")
    assert await claimed(RequestKeys(jet, KEY), "a" * 32, b"wish")


async def test_a_reader_of_the_stream_cannot_test_a_guess(jet: Jet) -> None:
    """Breaks: personal fields are found by trying names, after their session was destroyed."""
    await topology.declare(jet, 1 << 30)
    marks = []
    for number, key in enumerate((KEY, bytes(32))):
        await RequestKeys(jet, key).claim(f"{number:032x}", b"alice@example.com")
        held = await jet.last(subjects.REQUESTS, subjects.keyed_request(f"{number:032x}"))
        assert held is not None
        marks.append(bytes(held.data))
    assert marks[0] != marks[1]
    with pytest.raises(RefusedByState, match=r"idempotency\.reused"):
        await RequestKeys(jet, bytes(32)).claim(f"{0:032x}", b"alice@example.com")
