"""The port of a host of remote desktops: the sessions that run on it, and their displays as sources."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from schemas.ports.processes import Picture, Source


@dataclass(frozen=True, slots=True)
class RdpSession:
    """One RDP session of this host, as the host saw it at one moment."""

    key: str
    """Names the session for as long as it runs. No later session has the same."""
    display: int
    user: str
    uid: int
    domain: str = ""
    connected: bool = True
    """A client is connected. Without one the session runs on."""
    client: str = ""
    """Address of the client; empty: none is connected, or it is not known."""


class DisplaySource(Source, Protocol):
    """A source with parts."""

    def cut(self, reason: str) -> None:
        """Begin another part soon. reason: a label."""


class RdpHost(Protocol):
    """The host of the sessions. Its methods may be called from any thread."""

    def sessions(self) -> list[RdpSession]:
        """Return the sessions that run now. A session that ends meanwhile is left out."""

    async def size(self, session: RdpSession) -> tuple[int, int]:
        """Return width and height of its display. Raises Unavailable, Denied (both display.*)."""

    def source(self, session: RdpSession, picture: Picture) -> AbstractAsyncContextManager[DisplaySource]:
        """Open its display. Raises Unavailable (display.*, capture.*), Denied (display.*)."""

    async def tell(self, session: RdpSession, text: str, seconds: float, shown: Callable[[], None]) -> None:
        """Show a text on its display until a click, or for so long. shown: called once it is visible.

        Raises Unavailable, Denied (both display.*).
        """

    async def noticed(self) -> None:
        """Return when somebody says that a session begins or ends."""
