"""Whose source goes next, and how much data may still come: the decisions, without a stream."""

from dataclasses import replace

import pytest

from handlers.lifecycle.session import Session, initial
from handlers.retention.space import ASK_BYTES, may_purge, next_to_purge, send_quota_bytes
from schemas.events.session import DestroyOrdered, Sealed, SealStarted

DAY_S = 86_400.0
DAY_US = 86_400_000_000
HEAD = {"at_us": 0, "who": "conductor", "cause": "test"}


def sealed(name: str, at_us: int = 0) -> Session:
    seal = Sealed(
        **{**HEAD, "at_us": at_us},
        session=name,
        seal_no=1,
        manifest=bytes(32),
        root=bytes(32),
        chunks=1,
        plain=1,
        sealed=1,
    )
    return replace(initial(name), state="STOPPED", seals=(seal,))


def test_only_a_sealed_session_that_is_left_alone_may_lose_its_source() -> None:
    """Breaks: a recording that is not sealed yet, or a correction of a seal, loses what it is made from."""
    begun = SealStarted(**HEAD, session="s", seal_no=2, sealed_us=1, signer=bytes(32), n=1, stored=1)
    order = DestroyOrdered(
        **HEAD, session="s", trigger="CLEANUP", from_state="STOPPED", to_state="CLEANUP", approver="a",
        backups_until_us=0,
    )  # fmt: skip
    assert may_purge(sealed("s"))
    assert may_purge(replace(sealed("s"), held=True)), "a hold keeps evidence, and the evidence stays"
    assert not may_purge(replace(initial("s"), state="STOPPED"))
    assert not may_purge(replace(sealed("s"), seal_started=begun))
    assert not may_purge(replace(sealed("s"), destroy=order))


@pytest.mark.parametrize(
    ("now_us", "used", "expected"),
    [
        (DAY_US - 1, 0, None),
        (DAY_US, 0, "old"),
        (0, 700, None),
        (0, 701, "old"),
        (9 * DAY_US, 1000, "old"),
    ],
)
def test_a_source_goes_when_its_day_is_over_or_the_stream_fills(
    now_us: int, used: int, expected: str | None
) -> None:
    """Breaks: sources go too early, or the stream fills up with recordings that nobody needs."""
    found = next_to_purge({"new": 5, "old": 0}, now_us, DAY_S, used, 1000)
    assert found == expected


def test_a_stream_without_a_limit_is_never_full() -> None:
    """Breaks: on a server without limits every source goes at once, and no recording may send."""
    assert next_to_purge({"s": 0}, 0, DAY_S, 1 << 40, -1) is None
    assert send_quota_bytes(1 << 40, -1, 1) == ASK_BYTES


def test_allowances_end_below_the_top_whoever_asks_and_when() -> None:
    """Breaks: data fills the stream to the last byte, and no session can end any more."""
    limit, hosts = 1_000_000, 7
    used = 0
    in_hand = [0] * hosts
    for turn in range(100_000):
        host = (turn * turn + turn // 3) % hosts
        if not in_hand[host]:
            in_hand[host] = send_quota_bytes(used, limit, hosts)
        sent = min(in_hand[host], 1 + turn % 50)
        in_hand[host] -= sent
        used += sent
    assert 0.949 * limit < used < 0.976 * limit
    assert send_quota_bytes(used, limit, hosts) == 0


def test_far_from_full_a_host_asks_seldom() -> None:
    """Breaks: every fragment costs a question."""
    assert send_quota_bytes(0, 64 << 30, 10) == ASK_BYTES
