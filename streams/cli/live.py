"""Draws a few lines in place on a terminal's stderr, and removes them again.

1. Elsewhere it draws nothing. `drawn` tells a verb to write notes instead.
2. Lines are redrawn at most once in `gap_s` seconds, and cut at the terminal's width.
"""

import sys
import time
from typing import Any

from streams.cli.output import COLUMNS, styled


class LiveLines:
    """Lines of the present moment. gap_s: least time between two drawings."""

    def __init__(self, gap_s: float) -> None:
        self.drawn = styled(sys.stderr)
        """Whether lines are drawn at all."""
        self._gap_s, self._next_s = gap_s, 0.0
        self._live: Any = None

    def draw(self, lines: list[str], *, now: bool = False) -> None:
        """Replace the lines drawn before. now: even if the last drawing was less than `gap_s` ago."""
        if not self.drawn or (time.monotonic() < self._next_s and not now):
            return
        from rich.text import Text  # a program without a terminal never needs it

        self._next_s = time.monotonic() + self._gap_s
        if self._live is None:
            self._live = _started()
        self._live.update(Text("\n".join(lines), no_wrap=True, overflow="crop"), refresh=True)

    def clear(self) -> None:
        """Remove the lines: the verb writes their last state as its result."""
        if self._live is not None:
            self._live.stop()
            self._live = None


def _started() -> Any:
    from rich.console import Console
    from rich.live import Live

    console = Console(file=sys.stderr, force_terminal=True, highlight=False)
    console.width = min(console.width, COLUMNS)
    live = Live(
        console=console, auto_refresh=False, transient=True, redirect_stdout=False, redirect_stderr=False
    )
    live.start()
    return live
