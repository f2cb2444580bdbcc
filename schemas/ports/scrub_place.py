"""The port of the place where the scrub keeps its state: one owner at a time for each data folder."""

from typing import Protocol


class ScrubPlace(Protocol):
    """Calls block. A crash at any line leaves the state before or after a `write`."""

    def take(self) -> bool:
        """Become the owner until `release` or the end of the process; False: another process is."""

    def read(self) -> bytes | None:
        """Return the state that was written last, by any owner; None: there is none. Raises Unavailable."""

    def write(self, state: bytes) -> None:
        """Replace the state, durably. Only the owner may. Raises Unavailable, NoSpace (scrub.state)."""

    def release(self) -> None:
        """Let another process become the owner. A second call does nothing."""
