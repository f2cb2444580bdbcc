"""How closely a reader may follow a writer."""

from infra.jetstream.read_pace import BURST_BYTES, DISTANCE_BYTES, Pace

MB = 1_000_000
PER_S = 32 * MB


def test_who_reads_close_behind_a_fast_writer_may_read_a_burst_and_then_so_much_a_second() -> None:
    """Breaks: the server holds all that was written in 10 s, however much that is."""
    pace, now_s, close = Pace(), 0.0, 0
    for _ in range(1000):  # 10 s of 100 MB/s
        now_s += 0.01
        if pace.allows(0, now_s):
            pace.took(MB, 0, now_s)
            close += MB
    assert BURST_BYTES + 9 * PER_S < close < BURST_BYTES + 11 * PER_S


def test_a_slow_writer_is_followed_as_closely_as_can_be() -> None:
    """Breaks: two hundred desks at 1.2 Mbit/s are late for want of a request."""
    pace = Pace()
    for step in range(6000):
        assert pace.allows(0, step / 100)
        pace.took(300_000, 0, step / 100)


def test_far_behind_it_reads_as_fast_as_it_can() -> None:
    """Breaks: catching up takes the time that the recording took."""
    pace = Pace()
    pending = DISTANCE_BYTES // MB + 10
    for _ in range(1000):
        assert pace.allows(0, 1.0)
        pace.took(MB, pending, 1.0)
    assert pace.allows(9 * MB, 1.0)
    for _ in range(60):
        pace.took(MB, 0, 1.0)
    assert not pace.allows(0, 1.0)
    pace.took(MB, pending, 1.0)
    assert pace.allows(0, 1.0)
    assert not pace.allows(12 * MB, 1.0), "what is asked for already reaches the newest block"
