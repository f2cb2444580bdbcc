"""Makes the tokens by which sealed personal fields are found: keyed hashes, never clear text.

    token = BLAKE3(index key, field ‖ 0 ‖ value)[:12]

1. Equal values give equal tokens, so a store finds them without a key. Only a holder of the index key can
   make a token, or test a guess.
2. The owner is compared exactly. Every other value is compared without case, in Unicode's form NFKC.
3. A word of a name has a token for itself and for each of its beginnings of 3 to 24 letters.
"""

import re
import unicodedata
from collections.abc import Iterable, Iterator

from blake3 import blake3

from schemas.events.details import Details
from schemas.format.digest import d

TOKEN_BYTES = 12
PREFIX_LEAST, PREFIX_MOST = 3, 24
WORDS_MOST = 16
"""Words of one search."""
_WORD = re.compile(r"[^\W_]+")


class BlindIndex:
    """Makes tokens under one index key. secret: SECRET_KEY, for all that is no token; empty: the same."""

    def __init__(self, key: bytes, secret: str = "") -> None:
        self._key, self._secret = key, secret.encode() or key

    @property
    def key_id(self) -> str:
        """Names the index key and reveals nothing about it, 16 hex digits."""
        return d("lucid v1 index key id", self._key)[:8].hex()

    @property
    def cursor_key(self) -> bytes:
        """Signs the cursors of pages."""
        return d("lucid v1 cursor", self._secret)

    @property
    def request_key(self) -> bytes:
        """Marks the content of requests that have an Idempotency-Key."""
        return d("lucid v1 request key", self._secret)

    def tokens(self, details: Details) -> tuple[bytes, ...]:
        """Return the tokens of a session's fields, sorted."""
        beginnings = {part for word in _words(details.name) for part in _beginnings(word)}
        made = {self._token("name", beginning) for beginning in beginnings}
        return tuple(sorted({*made, *self._exact(details.owner, details)}))

    def owned_by(self, owner: str) -> bytes:
        """Return the token of an owner."""
        return self._token("owner", owner)

    def tagged(self, tag: str) -> bytes:
        """Return the token of a tag."""
        return self._token("tag", _normal(tag))

    def of_project(self, project: str) -> bytes:
        """Return the token of a project."""
        return self._token("project", _normal(project))

    def in_environment(self, environment: str) -> bytes:
        """Return the token of an environment."""
        return self._token("environment", _normal(environment))

    def named(self, text: str) -> tuple[bytes, ...]:
        """Return a token for each word of a search, sorted.

        A word of 3 to 24 letters also finds names with longer words that begin so.
        """
        return tuple(sorted({self._token("name", word) for word in _words(text)[:WORDS_MOST]}))

    def _exact(self, owner: str, details: Details) -> Iterator[bytes]:
        if owner:
            yield self.owned_by(owner)
        if details.project:
            yield self.of_project(details.project)
        if details.environment:
            yield self.in_environment(details.environment)
        for tag in details.tags:
            yield self.tagged(tag)

    def _token(self, field: str, value: str) -> bytes:
        return blake3(f"{field}\0{value}".encode(), key=self._key).digest()[:TOKEN_BYTES]


def _normal(value: str) -> str:
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", value).casefold())


def _words(text: str) -> list[str]:
    return _WORD.findall(_normal(text))


def _beginnings(word: str) -> Iterable[str]:
    longest = min(len(word), PREFIX_MOST)
    return {word, *(word[:length] for length in range(PREFIX_LEAST, longest + 1))}
