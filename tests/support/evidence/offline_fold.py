"""The borders of format.md §5 written a second time, for an in-order recording; for tests.

It shares nothing with handlers/stages/record/fold.py but the parsing of fragments.
"""

from collections.abc import Iterable

from schemas.events.session import SessionSettings
from schemas.format.fragment import KEY_FRAME, Fragment, Kind, parse

MAX_FRAGMENTS = 2048

Border = tuple[int, int, int, int]
"""Track, first seq, last seq, plain bytes of one chunk."""


def offline(fragments: Iterable[bytes], settings: SessionSettings) -> list[Border]:
    """The chunks of a whole recording, in order of their closing. fragments: each once, in order."""
    chunks: list[Border] = []
    open_: dict[int, list[Fragment]] = {}

    def plain(held: list[Fragment]) -> int:
        return sum(fragment.plain for fragment in held)

    def close(track: int) -> None:
        held = open_.pop(track, [])
        if held:
            chunks.append((track, held[0].header.seq, held[-1].header.seq, plain(held)))

    for whole in fragments:
        fragment = parse(whole)
        header, track = fragment.header, fragment.header.track
        if header.kind is Kind.FINAL:
            for other in sorted(open_):
                if other != track:
                    close(other)
        held = open_.get(track, [])
        due_us = held[0].header.time_us + settings.chunk_max_seconds * 1_000_000 if held else 0
        if held and (
            header.kind is Kind.PART
            or plain(held) + fragment.plain > settings.chunk_bytes
            or (header.flags & KEY_FRAME and 4 * plain(held) >= 3 * settings.chunk_bytes)
            or (header.time_us >= due_us and plain(held) > 0)
            or len(held) == MAX_FRAGMENTS
        ):
            close(track)
        open_.setdefault(track, []).append(fragment)
        if header.kind in (Kind.PAUSE, Kind.FINAL):
            close(track)
    return chunks
