"""Notes where a host was silent for longer than its tick allows (format.md §4, kind 3; §13).

1. Only track 0 counts: an idle host ticks there.
2. Chunks show the silence between them, and the least silence within each. With the rows of the index chunks
   the time of every fragment is known.
3. A declared hole is no silence, and a clock that was set back shows none.
4. There is one note: how often, and the longest.
"""

from collections.abc import Iterator

from handlers.verify.report import Finding
from schemas.format.fragment import MAIN
from schemas.format.manifest import Manifest

SILENT_US = 20_000_000
"""Two ticks: a busy host may be late with one."""


class Silences:
    """The silences found so far."""

    def __init__(self) -> None:
        self._times, self._longest_us, self._seq = 0, 0, 0

    def look(self, from_us: int, to_us: int, seq: int) -> None:
        """Look at the time from one fragment to the next, which is `seq`."""
        if to_us - from_us <= SILENT_US:
            return
        self._times += 1
        if to_us - from_us > self._longest_us:
            self._longest_us, self._seq = to_us - from_us, seq

    def note(self) -> Iterator[Finding]:
        if self._times:
            more = f", and {self._times - 1} times more" if self._times > 1 else ""
            text = f"nothing came from the host for {self._longest_us / 1e6:.1f} s{more}"
            yield Finding("host.silent", f"track {MAIN} before seq {self._seq}", text)


def look_between(manifest: Manifest, silences: Silences, *, within: bool) -> None:
    """Look at the silences between chunks; within: also at the least silence inside each."""
    before = None
    for chunk in manifest.chunks:
        if chunk.track != MAIN:
            continue
        if before is not None and chunk.first_seq == before.last_seq + 1:
            silences.look(before.last_us, chunk.first_us, chunk.first_seq)
        steps = chunk.last_seq - chunk.first_seq
        if within and steps > 0 and chunk.last_us - chunk.first_us > steps * SILENT_US:
            silences.look(0, -(-(chunk.last_us - chunk.first_us) // steps), chunk.last_seq)
        before = chunk
