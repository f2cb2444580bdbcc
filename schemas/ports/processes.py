"""The ports of other processes: supervised processes, and the source of a recording."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Protocol, Self

from schemas.events.session import CaptureSettings


@dataclass(frozen=True, slots=True)
class Picture:
    """The picture of a recording: size, rate, quality. The size is even: H.264 halves the colours."""

    width: int = 1280
    height: int = 720
    frame_rate: int = 30
    key_frame_s: float = 10.0
    quality: str = "high"
    """low, medium, high or ultra."""
    bitrate: int = 0
    """The most kbit/s; 0: as many as the quality takes."""
    cursor: bool = True

    @classmethod
    def of(cls, capture: CaptureSettings) -> Self:
        """Return the picture that a session's settings ask for."""
        width, height = capture.width & ~1, capture.height & ~1
        return cls(
            width,
            height,
            capture.frame_rate,
            quality=capture.quality,
            bitrate=capture.bitrate or 0,
            cursor=capture.cursor,
        )

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
    """A supervised process: restarted when it ends by itself, and ended with this process."""

    @property
    def pid(self) -> int:
        """Process id; 0: it does not run now."""

    async def start(self) -> None:
        """Start it, once. It runs on return."""

    async def stop(self) -> None:
        """Ask it to end, then kill it. It has ended on return. A second call does nothing."""


class Child(Process, Protocol):
    """A child process that runs a role."""

    @property
    def name(self) -> str: ...

    @property
    def starts(self) -> int:
        """Number of starts so far."""


class Server(Process, Protocol):
    """The installation's own broker. `start` returns when it answers. Raises Unavailable (nats.*)."""

    @property
    def url(self) -> str:
        """Address of the server, with credentials: not for logs."""

    @property
    def max_file(self) -> int:
        """Limit for all streams together, bytes."""


class TraceServer(Process, Protocol):
    """A server that takes spans and shows traces. `start` returns when it takes spans."""

    @property
    def otlp_url(self) -> str:
        """Where spans are sent."""

    @property
    def ui_url(self) -> str:
        """Where people look at traces."""


@dataclass(frozen=True, slots=True)
class NewPart:
    """The bytes behind it begin another part: they play by themselves."""

    reason: str
    """A label."""
    lost_s: float = 0
    """For so long before it the picture was lost: a gap says so."""


class Source(Protocol):
    """The source of one recording. One task may use it."""

    def __aiter__(self) -> AsyncIterator[bytes | NewPart]:
        """Yield its bytes until it ends or `stop` is called. Iterated once.

        The first part needs no NewPart.
        """

    def stop(self) -> None:
        """End soon. A second call, or one after the end, does nothing."""
