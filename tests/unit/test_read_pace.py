"""How much readers may ask for, and how closely they may follow a writer."""

from infra.jetstream.read_pace import (
    BURST_BYTES,
    DISTANCE_BYTES,
    LEAST_PULL_BYTES,
    MESSAGE_BYTES,
    POOL_BYTES,
    PULLS,
    Pace,
    ReadBudget,
)

MB = 1_000_000
PER_S = 32 * MB


def test_who_reads_close_behind_a_fast_writer_may_read_a_burst_and_then_so_much_a_second() -> None:
    """Breaks: the server holds all that was written in 10 s, however much that is."""
    for readers in (1, 4):
        budget = ReadBudget()
        shares, now_s, close = [budget.share() for _ in range(readers)], 0.0, 0
        for step in range(1000):  # 10 s of 100 MB/s
            now_s += 0.01
            if budget.pace.allows(now_s):
                shares[step % readers].took(MB, 0, now_s)
                close += MB
        assert BURST_BYTES + 9 * PER_S < close < BURST_BYTES + 11 * PER_S


def test_workers_that_share_a_server_share_its_pace() -> None:
    """Breaks: two workers make the server hold twice its memory, and it stands still."""
    close = {}
    for workers in (1, 4):
        paces, now_s = [Pace(1 / workers) for _ in range(workers)], 0.0
        close[workers] = 0
        for _ in range(1000):
            now_s += 0.01
            for pace in paces:
                if pace.allows(now_s):
                    pace.took(MB, now_s)
                    close[workers] += MB
    assert 0.9 < close[4] / close[1] < 1.1


def test_a_slow_writer_is_followed_as_closely_as_can_be() -> None:
    """Breaks: two hundred desks at 1.2 Mbit/s are late for want of a request."""
    share = ReadBudget().share()
    for step in range(6000):
        assert share.next_pull(step / 100) == POOL_BYTES // PULLS
        share.took(300_000, 0, step / 100)
        share.queued_bytes = 0


def test_far_behind_it_reads_as_fast_as_it_can() -> None:
    """Breaks: catching up takes the time that the recording took."""
    share = ReadBudget().share()
    pending = DISTANCE_BYTES // MB + 10

    def took(count: int, pending: int) -> None:
        for _ in range(count):
            share.took(MB, pending, 1.0)
            share.queued_bytes = 0

    took(1000, pending)
    share.open_bytes = 7 * MB
    assert share.next_pull(1.0) > LEAST_PULL_BYTES
    took(60, 0)
    share.open_bytes = 0
    assert share.next_pull(1.0) == LEAST_PULL_BYTES, "a little, so that it goes on"
    assert share.next_pull(1.0) == 0, "and then it rests"
    took(1, pending)
    assert share.next_pull(1.0) > LEAST_PULL_BYTES
    took(1, 17)
    share.open_bytes = 8 * MB
    assert share.next_pull(1.0) == 0, "what is asked for already reaches the newest block"


def test_idle_readers_hold_little_and_the_rest_goes_to_those_with_messages() -> None:
    """Breaks: fifteen idle shards keep the sixteenth from being read as fast as one alone."""
    budget = ReadBudget()
    shares = [budget.share() for _ in range(16)]

    def ask(number: int) -> int:
        share = shares[number]
        size = share.next_pull(1.0)
        share.open_bytes += size
        return size

    assert [ask(number) for number in range(16)] == [LEAST_PULL_BYTES] * 16
    assert [ask(number) for number in range(16)] == [0] * 16
    asked = 0
    for _ in range(10):
        shares[5].has_more = True
        asked += ask(5)
    assert asked == POOL_BYTES
    shares[6].has_more = True
    assert ask(6) == 0, "the pool is empty"
    shares[6].open_bytes = 0
    assert ask(6) == LEAST_PULL_BYTES, "its own reserve is not"
    assert sum(share.held_bytes for share in shares) <= 32 << 20


def test_messages_without_data_are_counted_until_they_are_taken_out() -> None:
    """Breaks: a reader asks for more and more of what takes memory, and has no bytes."""
    budget = ReadBudget()
    share, other = budget.share(), budget.share()
    queued = 0
    while size := share.next_pull(1.0):
        share.open_bytes = 0
        share.took(0, 0, 1.0)
        queued += 1
        assert size >= LEAST_PULL_BYTES
    assert queued * MESSAGE_BYTES <= POOL_BYTES
    assert other.next_pull(1.0) == LEAST_PULL_BYTES, "its own reserve is not taken"
    for _ in range(queued):
        share.gave(0)
    assert share.queued_bytes == 0
    assert share.next_pull(1.0) > 0
