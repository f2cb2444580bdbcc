"""Owns what all signed documents share: one value, one text (format.md §1, JSON).

1. Every named member is there and no other; what was parsed builds the same bytes again.
2. A member that may be absent is None here and never null there.
3. What does not fit is EvidenceFalse with code <name>.form.
"""

from typing import Any, ClassVar, NoReturn, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from schemas.dsse import Envelope
from schemas.errors import EvidenceFalse, Rejected
from schemas.jcs import jcs, strict_loads


class Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Document(Strict):
    """A whole JSON text."""

    NAME: ClassVar[str]

    def build(self) -> bytes:
        """Its one text."""
        return jcs(self.model_dump(exclude_none=True))

    @classmethod
    def parse(cls, raw: bytes) -> Self:
        """Raises EvidenceFalse (<name>.form)."""
        try:
            return cls._of(strict_loads(raw), raw)
        except Rejected as error:
            cls._refuse(error.message)

    @classmethod
    def within(cls, envelope: Envelope) -> Self:
        """The document that an envelope carries. Raises EvidenceFalse (<name>.form)."""
        return cls._of(envelope.value, envelope.payload)

    @classmethod
    def _of(cls, value: Any, raw: bytes) -> Self:
        try:
            document = cls.model_validate(value)
        except ValidationError as error:
            first = error.errors()[0]
            cls._refuse(f"{'.'.join(str(part) for part in first['loc']) or 'it'}: {first['msg']}")
        if document.build() != raw:
            cls._refuse("a value is not in its one form")
        return document

    @classmethod
    def _refuse(cls, message: str) -> NoReturn:
        raise EvidenceFalse(f"{cls.NAME} refused: {message[:300]}", code=f"{cls.NAME}.form") from None
