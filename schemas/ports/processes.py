"""The ports of other processes: supervised processes, and the source of a recording.

`Picture` says how a source draws; `Media` says how a decoder read the recording again.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Picture:
    """Size, rate and key-frame distance of a recording."""

    width: int = 1280
    height: int = 720
    frame_rate: int = 30
    key_frame_s: float = 10.0

    def __str__(self) -> str:
        return f"{self.width}x{self.height} at {self.frame_rate} fps"


@dataclass(frozen=True, slots=True)
class Media:
    """The picture stream that a decoder found in a recording."""

    codec: str
    width: int
    height: int
    frames: int
    seconds: float


class Process(Protocol):
    """A process that is supervised: started again when it ends by itself, and gone when we are."""

    @property
    def pid(self) -> int:
        """Of the process that runs now; 0: none does."""

    async def start(self) -> None: ...

    async def stop(self) -> None:
        """Ask it to end; kill it if it does not. A second call does nothing."""


class Child(Process, Protocol):
    """A process of our own."""

    @property
    def name(self) -> str: ...

    @property
    def starts(self) -> int:
        """How often it was started."""


class Server(Process, Protocol):
    """A broker of our own. `start` returns when it answers. Raises Unavailable (nats.*)."""

    @property
    def url(self) -> str:
        """Where it listens, credentials included: not for logs."""

    @property
    def max_file(self) -> int:
        """Bytes that its streams may take together."""


class Source(Protocol):
    """What is recorded."""

    def __aiter__(self) -> AsyncIterator[bytes]:
        """Its bytes, until it ends or was stopped. Iterated once."""

    def stop(self) -> None:
        """End soon. Harmless when it has ended."""
