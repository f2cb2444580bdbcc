"""Which hosts have a row of their own among the measurements."""

from streams.conductor.shown_hosts import HOSTS_MOST, NAMES_MOST, NAMES_S, OTHERS, ShownHosts


class Clock:
    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def test_the_hosts_of_an_installation_keep_their_rows_while_their_ages_change() -> None:
    """Breaks: the line of a host has a hole whenever another host was silent longer."""
    shown, hosts = ShownHosts(Clock()), [f"host-{number}" for number in range(100)]
    for turn in range(20):
        ages = {host: float((number * 7 + turn * 13) % 10) for number, host in enumerate(hosts)}
        assert shown.rows(ages) == {(host,): age for host, age in ages.items()}


def test_hosts_beyond_the_bound_are_one_row_with_the_longest_silence() -> None:
    """Breaks: one host that makes up names fills Prometheus, or hides that an honest host is silent."""
    shown = ShownHosts(Clock())
    honest = {f"host-{number}": 1.0 for number in range(100)}
    assert len(shown.rows(honest)) == 100
    rows = shown.rows({f"made-up-{number}": 500.0 + number for number in range(10_000)} | honest)
    assert len(rows) == HOSTS_MOST + 1
    assert rows.keys() >= {(host,) for host in honest}
    assert rows[OTHERS,] == 500.0 + 10_000 - 1 - (HOSTS_MOST - 100)


def test_names_that_change_all_the_time_make_no_more_rows() -> None:
    """Breaks: a host that takes a new name for each session makes a new series each time."""
    clock = Clock()
    shown, seen = ShownHosts(clock), set[tuple[str, ...]]()
    for turn in range(10_000):
        clock.now_s += NAMES_S / 20_000
        rows = shown.rows({f"made-up-{turn}": 1.0, "host-1": 2.0})
        seen |= rows.keys()
        assert rows["host-1",] == 2.0
    assert len(seen) == NAMES_MOST + 1
    clock.now_s += NAMES_S + 1
    assert ("later",) in shown.rows({"later": 1.0})
