"""Writes the bodies of fragments into overflow files, and reads those of a whole chunk back.

1. A body is ciphertext, as the host sealed it. Its header, signature and digests stay in memory.
2. Nothing here is trusted: the cipher's tag of each fragment proves its body when it is opened.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import zip_longest

from schemas.buffers import unfilled
from schemas.format.fragment import Fragment
from schemas.ports import OverflowFile

NO_BODY = memoryview(b"")


@dataclass(frozen=True, slots=True)
class Spilled:
    """A fragment whose body is in a file."""

    bare: Fragment
    """The fragment without its body."""
    file: OverflowFile
    at: int
    size: int


Kept = Fragment | Spilled
"""A fragment in memory, or in a file."""


def spilled(fragment: Fragment, file: OverflowFile) -> Spilled | None:
    """Write the body of a fragment; None: the file does not take it."""
    at = file.append(fragment.body)
    return None if at is None else Spilled(replace(fragment, body=NO_BODY), file, at, len(fragment.body))


def bytes_held(kept: Kept) -> int:
    """The bytes of a body in memory."""
    return 0 if isinstance(kept, Spilled) else len(kept.body)


def read_back(kept: list[Kept]) -> list[Fragment] | None:
    """Return the fragments with their bodies; None: the file has lost bytes. Blocks: use a thread.

    It empties `kept`: a file without other users ends here, in this thread (0.1 ms for each MiB).
    """
    away = [one for one in kept if isinstance(one, Spilled)]
    buffer = memoryview(unfilled(sum(one.size for one in away)))
    is_whole = all(file.read(at, buffer[begin:end]) for file, at, begin, end in _spans(away))
    found, begin = list[Fragment](), 0
    for one in kept:
        if isinstance(one, Spilled):
            found.append(replace(one.bare, body=buffer[begin : begin + one.size]))
            begin += one.size
        else:
            found.append(one)
    kept.clear()
    return found if is_whole else None


def _spans(away: list[Spilled]) -> Iterator[tuple[OverflowFile, int, int, int]]:
    """Yield each piece of a file that holds neighbours: the file, the position, its place in the buffer."""
    begin = end = 0
    for one, after in zip_longest(away, away[1:]):
        end += one.size
        if after is None or after.file is not one.file or after.at != one.at + one.size:
            yield one.file, one.at + one.size - (end - begin), begin, end
            begin = end
