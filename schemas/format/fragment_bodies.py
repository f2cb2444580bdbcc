"""The clear bodies of fragments: part, gap, pause, resume, final and end (format.md §4).

1. JSON bodies are canonical, with every declared member and no other.
2. A body of another form is Rejected (fragment.body).
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, NoReturn, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from schemas.errors import Rejected
from schemas.format.digest import Buffer
from schemas.format.jcs import jcs, strict_loads
from schemas.types import Count, ForcedEnd, Hex32, Label, TimeUs


class Body(BaseModel):
    """A JSON object in a fragment: no member missing, added or converted."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def build(self) -> bytes:
        return jcs(self.model_dump())

    @classmethod
    def parse(cls, raw: Buffer) -> Self:
        """Raises Rejected (fragment.body)."""
        try:
            body = cls.model_validate(strict_loads(bytes(raw)))
        except (Rejected, ValidationError) as error:
            _refuse(f"{cls.__name__}: {str(error)[:300]}")
        if body.build() != bytes(raw):
            _refuse(f"{cls.__name__}: a value is not in canonical form")
        return body


class PartSettings(Body):
    encoder: Label
    reason: Label


class GapBody(Body):
    """The time and the frames that the host could not record."""

    from_us: TimeUs
    to_us: TimeUs
    frames: Count
    reason: Label


class ReasonBody(Body):
    """The body of PAUSE and RESUME."""

    reason: Label


class TrackTail(Body):
    """The end of a track: last seq, head of that fragment, plain bytes of the whole track."""

    id: Literal[0, 1]
    last_seq: Count
    head: Hex32
    plain: Count


class _Tails(Body):
    tracks: Annotated[tuple[TrackTail, ...], Field(max_length=2)]

    @model_validator(mode="after")
    def _sorted(self) -> Self:
        ids = [track.id for track in self.tracks]
        if ids != sorted(set(ids)):
            raise ValueError("tracks are not in order of id, each once")
        return self


class FinalBody(_Tails):
    """The tails of every track on which the host made a fragment."""

    @model_validator(mode="after")
    def _main(self) -> Self:
        if not self.tracks or self.tracks[0].id != 0:
            raise ValueError("track 0 is missing")
        return self


class EndBody(_Tails):
    """The platform's own ending. tracks: those of which the platform holds a fragment."""

    end: ForcedEnd
    reason: Label


@dataclass(frozen=True, slots=True)
class PartBody:
    """u16 n ‖ settings (n bytes JCS, as sent) ‖ enc 1120 ‖ ciphertext 48."""

    settings: bytes
    enc: bytes
    ciphertext: bytes

    ENC_BYTES: ClassVar = 1120
    CIPHERTEXT_BYTES: ClassVar = 48
    MAX_SETTINGS: ClassVar = 2926
    LEAST_BYTES: ClassVar = 2 + 2 + ENC_BYTES + CIPHERTEXT_BYTES

    def build(self) -> bytes:
        return len(self.settings).to_bytes(2, "little") + self.settings + self.enc + self.ciphertext

    @classmethod
    def parse(cls, raw: Buffer) -> Self:
        """Raises Rejected (fragment.body)."""
        whole = bytes(raw)
        size = int.from_bytes(whole[:2], "little")
        if size > cls.MAX_SETTINGS or len(whole) != 2 + size + cls.ENC_BYTES + cls.CIPHERTEXT_BYTES:
            _refuse(f"part: {size} bytes of settings do not fit a body of {len(whole)}")
        end = 2 + size + cls.ENC_BYTES
        body = cls(whole[2 : 2 + size], whole[2 + size : end], whole[end:])
        PartSettings.parse(body.settings)
        return body


def _refuse(message: str) -> NoReturn:
    raise Rejected(f"fragment refused: {message}", code="fragment.body") from None
