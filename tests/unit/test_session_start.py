"""How a host waits for its turn to start a session."""

import asyncio

import pytest

from schemas.errors import Unavailable
from schemas.events.session import SessionSettings
from schemas.ports import HostIdentity, Jet
from streams.host import session_start
from streams.scheduling import retry


class Turn(Exception):
    """It was this session's turn."""


async def test_the_last_of_250_desktops_that_begin_at_once_has_its_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Breaks: half of a terminal server's users, who log in at nine, are not recorded."""
    now_s = 0.0
    monkeypatch.setattr(retry, "clock_s", lambda: now_s)
    monkeypatch.setattr(retry, "sleep", lambda _: asyncio.sleep(0))

    def identities(host: str) -> HostIdentity:
        nonlocal now_s
        now_s += 0.1
        if now_s > 25:
            raise Turn
        raise Unavailable(f"another process starts a session of {host}", code="host.locked")

    with pytest.raises(Turn):
        await session_start.start_session(NOBODY, identities, "rdp-01", "desk-250", SETTINGS)


SETTINGS = SessionSettings()
NOBODY: Jet = None  # type: ignore[assignment]  # nobody is asked before it is our turn
