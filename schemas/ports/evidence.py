"""Owns the port through which a verification reads: where evidence lies is not its business.

1. Bytes are asked for with a limit and come back no longer than limit + 1: hostile files cost no memory.
2. `None` means: there is no such file. A file or folder that is there and cannot be read raises Unreadable:
   then there is no verdict, neither true nor false (format.md §13), and no check may catch it.
3. Nothing is cached; a verification reads each chunk once, with keys twice.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

HISTORY_MAX_BYTES = 1 << 30
NAME_SHOWN = 120
"""Characters of a strange file's name that are told."""
HISTORY_LINE_MAX_BYTES = 65_536
"""With its line end."""


@dataclass(frozen=True, slots=True)
class Listing:
    """The names in a folder, by their form."""

    numbers: frozenset[int]
    """Of the files that the layout names."""
    unnamed: tuple[str, ...] = ()
    """Names of evidence in form (format.md §11), which the layout cannot mean."""
    strays: tuple[str, ...] = ()
    """All other names: nobody sealed what they name."""


def printable(name: str) -> str:
    """A name that a stranger chose, safe to print."""
    return name.encode("unicode_escape").decode("ascii")[:NAME_SHOWN]


class Evidence(Protocol):
    """One session's evidence, wherever it lies. All methods are called from one thread and may block."""

    def strays(self) -> tuple[str, ...]:
        """Names beside manifests, chunks, history and keys."""
        ...

    def seals(self) -> Listing:
        """Numbers of the manifests."""
        ...

    def manifest(self, seal_no: int, limit: int) -> bytes | None:
        """The envelope of one seal, at most limit + 1 bytes."""
        ...

    def indices(self) -> Listing:
        """Indices of the sealed chunks."""
        ...

    def chunk(self, index: int, limit: int) -> bytes | None:
        """The sealed chunk, at most limit + 1 bytes."""
        ...

    def history(self, line_limit: int) -> Iterator[bytes] | None:
        r"""The lines of the history with their \n; a longer line comes in pieces of line_limit bytes."""
        ...
