"""Delayed sessions: the conductor tells each process that serves HTTP, and asks for no token."""

from schemas import subjects
from schemas.ports import Jet
from streams.api.own_answers import Delays


async def test_a_delay_is_told_to_every_process_that_asks(jet: Jet) -> None:
    """Breaks: over HTTP a session looks healthy, while its key cannot be written."""
    told = b'{"slow": {"code": "keys.space", "message": "full", "hint": "free some"}}'
    async with jet.serve(subjects.DELAYS, lambda: told):
        delays = Delays(jet)
        assert (await delays.of("slow"))["code"] == "keys.space"
        assert await delays.of("quick") == {}


async def test_while_nobody_tells_there_is_no_delay_and_no_error(jet: Jet) -> None:
    """Breaks: sessions cannot be shown while the conductor is away."""
    delays = Delays(jet)
    assert await delays.of("slow") == {}
    async with jet.serve(subjects.DELAYS, lambda: b"no JSON"):
        assert await Delays(jet).of("slow") == {}
