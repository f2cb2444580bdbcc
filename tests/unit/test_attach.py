"""How a verb ends when it is interrupted."""

import subprocess
import sys

HANG_UP = """
import asyncio, os, signal, sys
from streams.cli.attach import run
from streams.cli.outlets import install
install()
async def work():
    os.kill(os.getpid(), signal.SIGHUP)
    await asyncio.Event().wait()
try:
    run(work())
except KeyboardInterrupt:
    sys.exit(7)
"""


def test_a_verb_whose_output_is_closed_hears_its_terminal_hang_up() -> None:
    """Breaks: `lucid up >&- &` goes on for ever when its terminal is closed."""
    closed = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", sys.executable, "-c", HANG_UP]
    assert subprocess.run(closed, check=False, timeout=60).returncode == 7
