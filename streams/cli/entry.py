"""Begins the program as the console script, and ends it in one line where it is interrupted before its work.

1. It imports nothing of ours before it can catch Ctrl-C: to load the program takes a quarter of a second.
2. What is interrupted later, streams.cli.main has reported.
"""

import signal
import sys

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def run() -> None:
    """The console script."""
    try:
        from streams.cli.main import run as begin

        begin()
    except KeyboardInterrupt:
        for number in ENDING:  # one was enough
            signal.signal(number, signal.SIG_IGN)
        from streams.cli import outlets, output

        outlets.install()
        sys.exit(output.settled(output.report_interrupted("--json" in sys.argv)))
