"""The soak itself works: a short one, with few hosts, finds nothing."""

from pathlib import Path

from tests.soak.soak import soak

MINUTES, HOSTS = 0.2, 6


async def test_a_short_soak_loses_and_doubles_nothing(tmp_path: Path, shards: int) -> None:
    """Breaks: kills, freezes and forgeries together do what none of them does alone."""
    figures = await soak(MINUTES, tmp_path, hosts=HOSTS)
    print(figures.told())
    assert figures.failures == []
    assert figures.shards == shards
    assert (figures.losses, figures.doubles) == (0, 0)
    assert figures.sessions >= HOSTS
    assert figures.kills.total() >= 1
