"""Starts the program as the console script; Ctrl-C before its work ends it in one line.

1. It imports nothing of ours before it can catch Ctrl-C: loading the program takes a quarter of a second.
2. streams.cli.main reports every later interrupt itself.
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
        sys.exit(output.final_status(output.report_interrupted("--json" in sys.argv)))
