"""Owns what is said of a recorded picture: how it is to be made, and what a decoder found."""

from dataclasses import dataclass


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
    """What a decoder found in a recording."""

    codec: str
    width: int
    height: int
    frames: int
    seconds: float
