"""Lists the verbs, and names a command in a message as this program was called.

1. Every text says `lucid VERB …`. `as_called` rewrites it when it is shown to a person.
2. JSON is for programs: it keeps `lucid VERB …`.
"""

import os
import re
import shutil
import sys
from pathlib import Path

VERBS = {
    "demo": "Record, seal, verify and export a session, all on this machine.",
    "up": "Run everything on this machine until Ctrl-C.",
    "record": "Record a session: a file, standard input, or a drawn desktop.",
    "sessions": "List, show, describe, pause, stop, hold or destroy sessions.",
    "watch": "Follow a session's chunks through the six stages, or all sessions.",
    "verify": "Check that nothing changed since a session was sealed.",
    "export": "Write out a recording, its evidence, or the trust file.",
    "replay": "Make chunks again from the recording stream, and compare.",
    "scrub": "Show the background check of everything stored, or begin it.",
    "recover": "Bring a session in ERROR back to work.",
    "keys": "Rotate, copy and restore keys; show, rotate and revoke signers.",
    "audit": "List, export and verify the audit chain.",
    "access": "Ask a second person for a look, or answer.",
    "hosts": "Show the hosts that may record.",
    "agent": "Record the RDP sessions of this host.",
    "token": "Make a token, for development.",
    "projections": "Show the read models, or make them anew from the log.",
    "config": "Show every setting and where it came from, or a template.",
    "serve": "Run one role alone.",
    "doctor": "Say whether this machine can run it, and what to do.",
    "bench": "Measure the speed of this machine.",
}
ATTACHING = frozenset(
    (
        "record",
        "sessions",
        "watch",
        "verify",
        "export",
        "replay",
        "scrub",
        "recover",
        "keys",
        "audit",
        "access",
        "hosts",
        "agent",
        "projections",
        "serve",
    )
)
"""Verbs that connect to a running system, and wait for one that starts."""
NAME = "lucid"
COMMAND = re.compile(rf"(?:uv run )?(?<![\w/.-]){NAME} ((?:{'|'.join(VERBS)}|--help)\b(?: [\w./-]+){{0,3}})")


def program() -> str:
    """The words that a person types to call this program."""
    if "UV_RUN_RECURSION_DEPTH" in os.environ:
        return f"uv run {NAME}"
    called = Path(sys.argv[0])
    return str(called) if called.name == NAME and shutil.which(NAME) is None else NAME


def as_called(text: str, blank: str = " ") -> str:
    """The text with every command in it as it can be typed here. blank: between the words of a command."""
    return COMMAND.sub(lambda found: f"{program()} {found[1]}".replace(" ", blank), text)
