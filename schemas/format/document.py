"""The common form of all signed documents: each value has one text, read item by item (format.md §1, §9).

1. Every declared member is present and no other. A parsed document builds the same bytes again.
2. An optional member is None in Python; in the text it is absent, never null.
3. A text of another form is EvidenceFalse (<name>.form).
4. Reading holds one raw list item at a time: a hostile text costs little more memory than its own bytes.
   A list item, and a member outside lists, has at most `ITEM_BYTES`.
"""

import json
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, ClassVar, NoReturn, Self, get_args, get_origin

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from schemas.errors import EvidenceFalse, Rejected
from schemas.format.dsse import Envelope
from schemas.format.jcs import DECODER, jcs

ITEM_BYTES = 8_192


class Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Document(Strict):
    """A whole JSON text."""

    NAME: ClassVar[str]

    def build(self) -> bytes:
        """Return the canonical text of the document."""
        return jcs(self.model_dump(exclude_none=True))

    @classmethod
    def parse(cls, raw: bytes) -> Self:
        """Raises EvidenceFalse (<name>.form)."""
        text = _Text(raw)
        values: dict[str, Any] = {}
        written: dict[str, bytes] = {}
        try:
            for name in _names(cls, text):
                adapter, most = _list_of(cls, name)
                if adapter is None:
                    values[name], written[name] = text.value()
                else:
                    values[name] = _items(text, name, adapter, most)
            text.end()
            document = cls.model_validate(values)
            built = document.model_dump(include=set(written), exclude_none=True)
            for name, raw_value in written.items():
                _same(built[name], raw_value)
            return document
        except ValidationError as error:
            first = error.errors()[0]
            cls._refuse(f"{'.'.join(str(part) for part in first['loc']) or 'it'}: {first['msg']}")
        except (Rejected, RecursionError, ValueError) as error:
            cls._refuse(str(error))

    @classmethod
    def within(cls, envelope: Envelope) -> Self:
        """Return the document in an envelope. Raises EvidenceFalse (<name>.form)."""
        return cls.parse(envelope.payload)

    @classmethod
    def _refuse(cls, message: str) -> NoReturn:
        raise EvidenceFalse(f"{cls.NAME} refused: {message[:300]}", code=f"{cls.NAME}.form") from None


class _Text:
    """A cursor in a text. Raises ValueError where the text differs from the form."""

    def __init__(self, raw: bytes) -> None:
        self._raw = raw
        self._at = 0

    def take(self, wanted: bytes) -> None:
        if not self.skip(wanted):
            found = self._raw[self._at : self._at + len(wanted)]
            raise ValueError(f"byte {self._at}: {wanted!r} is wanted, {found!r} found")

    def skip(self, wanted: bytes) -> bool:
        """Whether `wanted` stands here; if so, move past it."""
        if not self._raw.startswith(wanted, self._at):
            return False
        self._at += len(wanted)
        return True

    def value(self) -> tuple[Any, bytes]:
        """Return the next value and its bytes."""
        piece = self._raw[self._at : self._at + ITEM_BYTES]
        value, length = DECODER.raw_decode(piece.decode("ascii"))
        self._at += length
        return value, piece[:length]

    def end(self) -> None:
        self.take(b"}")
        if self._at != len(self._raw):
            raise ValueError(f"byte {self._at}: bytes follow the document")


def _names(document: type[Document], text: _Text) -> Iterator[str]:
    """Yield the name of each member after reading it from the text."""
    before = b"{"
    for name in sorted(document.model_fields):
        text.take(before + json.dumps(name).encode() + b":")
        yield name
        before = b","


def _items(text: _Text, name: str, adapter: TypeAdapter[Any], most: int | None) -> tuple[Any, ...]:
    """Return the items of a list, each in canonical form."""
    items: list[Any] = []
    text.take(b"[")
    while not text.skip(b"]"):
        if items:
            text.take(b",")
        if len(items) == most:
            raise ValueError(f"{name}: more than {most} items")
        value, written = text.value()
        try:
            item = adapter.validate_python(value)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, (name, len(items), *first["loc"])))
            raise ValueError(f"{where}: {first['msg']}") from None
        _same(adapter.dump_python(item, exclude_none=True), written)
        items.append(item)
    return tuple(items)


@lru_cache(maxsize=64)
def _list_of(document: type[Document], name: str) -> tuple[TypeAdapter[Any] | None, int | None]:
    """Return the adapter for the items of a member (None: no list) and the greatest number of items."""
    field = document.model_fields[name]
    if get_origin(field.annotation) is not tuple:
        return None, None
    most = next((known.max_length for known in field.metadata if hasattr(known, "max_length")), None)
    return TypeAdapter(get_args(field.annotation)[0]), most


def _same(value: Any, written: bytes) -> None:
    if jcs(value) != written:
        raise ValueError(f"{written[:60]!r} is not in canonical form")
