"""The port through which a verification reads evidence, in a store or in an evidence copy.

1. Each read has a limit and returns at most limit + 1 bytes: a hostile file costs no memory.
2. None: there is no such file. An existing file or folder that cannot be read raises Unreadable. Then there
   is no verdict (format.md §13), and no check may catch the error.
3. Nothing is cached: a second call reads again. A verification reads each chunk once, with keys twice.
4. All methods only read. They may block, and are called from one thread.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

HISTORY_MAX_BYTES = 1 << 30
NAME_SHOWN = 120
"""Characters of an unknown file's name in a finding."""
HISTORY_LINE_MAX_BYTES = 65_536
"""Line end included."""


@dataclass(frozen=True, slots=True)
class Listing:
    """The names in a folder, grouped by form."""

    numbers: frozenset[int]
    """Numbers of the files that the layout allows."""
    unnamed: tuple[str, ...] = ()
    """Names in the form of evidence (format.md §11) that the layout does not allow."""
    strays: tuple[str, ...] = ()
    """All other names: files that nobody sealed."""


def printable(name: str) -> str:
    """Return an untrusted name in a form that is safe to print, at most NAME_SHOWN characters."""
    return name.encode("unicode_escape").decode("ascii")[:NAME_SHOWN]


class Evidence(Protocol):
    """The evidence of one session. Every method may raise Unreadable."""

    def strays(self) -> tuple[str, ...]:
        """Return names other than manifests, chunks, history and keys."""

    def seals(self) -> Listing:
        """Return the numbers of the manifests."""

    def manifest(self, seal_no: int, limit: int) -> bytes | None:
        """Return the envelope of one seal, at most limit + 1 bytes."""

    def indices(self) -> Listing:
        """Return the indices of the sealed chunks."""

    def chunk(self, index: int, limit: int) -> bytes | None:
        """Return one sealed chunk, at most limit + 1 bytes."""

    def history(self, line_limit: int) -> Iterator[bytes] | None:
        r"""Yield the lines of the history with their \n; longer lines come in pieces of line_limit bytes."""
