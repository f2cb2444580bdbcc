"""An Idempotency-Key belongs to one request: for several processes, and after a crash before the command."""

import asyncio
from dataclasses import replace

import pytest

from schemas import subjects
from schemas.errors import RefusedByState
from schemas.ports import Jet
from streams.event_store import request_keys, topology
from streams.event_store.request_keys import RequestKeys

KEY = bytes(range(32))


async def claimed(keys: RequestKeys, name: str, content: bytes, caller: str = "alice") -> bool:
    try:
        await keys.claim(caller, name, content)
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
    await RequestKeys(jet, KEY).claim("alice", "a" * 32, b"wish")
    assert await claimed(RequestKeys(jet, KEY), "a" * 32, b"wish")


async def test_a_reader_of_the_stream_cannot_test_a_guess(jet: Jet) -> None:
    """Breaks: personal fields are found by trying names, after their session was destroyed."""
    await topology.declare(jet, 1 << 30)
    marks, callers = [], []
    for number, key in enumerate((KEY, bytes(32))):
        await RequestKeys(jet, key).claim("alice", f"{number:032x}", b"alice@example.com")
        held = await jet.last(subjects.REQUESTS, subjects.keyed_request("*", f"{number:032x}"))
        assert held is not None
        marks.append(bytes(held.data))
        callers.append(held.subject.split(".")[2])
    assert marks[0] != marks[1]
    assert callers[0] != callers[1]
    with pytest.raises(RefusedByState, match=r"idempotency\.reused"):
        await RequestKeys(jet, KEY).claim("alice", f"{0:032x}", b"bob@example.com")


async def test_no_caller_pushes_out_the_keys_of_another(jet: Jet, monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks: one client sends without end, and the reused key of another one is carried out."""
    monkeypatch.setattr(request_keys, "TRIM_EVERY", 16)
    await topology.declare(jet, 64 << 20)
    keys = RequestKeys(jet, KEY)
    await keys.claim("alice", "a" * 32, b"first")
    most = (await jet.info(subjects.REQUESTS)).max_bytes // 128  # more than it can hold
    for first in range(0, most, 100):
        names = [f"{number:032x}" for number in range(first, first + 100)]
        await asyncio.gather(*(keys.claim("mallory", name, b"wish") for name in names))
    assert not await claimed(keys, "a" * 32, b"second")
    assert not await claimed(keys, names[-1], b"second", "mallory")
    held = await jet.info(subjects.REQUESTS)
    assert held.bytes < held.max_bytes // request_keys.CALLERS + 16 * request_keys.CLAIM_BYTES
    assert held.bytes <= held.messages * request_keys.CLAIM_BYTES


async def test_a_stream_of_before_takes_the_keys_of_callers(jet: Jet) -> None:
    """Breaks: after an upgrade every request with an Idempotency-Key fails."""
    (spec,) = (one for one in topology.streams(1 << 30) if one.name == subjects.REQUESTS)
    await jet.declare(replace(spec, subjects=(subjects.FORMER_REQUESTS,)))
    await topology.declare(jet, 1 << 30)
    assert await claimed(RequestKeys(jet, KEY), "a" * 32, b"wish")
    assert not await claimed(RequestKeys(jet, KEY), "a" * 32, b"another")
