"""Reads the kernel's table of processes: parent, program and begin of each (man 5 proc).

1. A process is named by its id and its begin. The begin counts from the start of the machine: nobody moves it
   by setting a clock.
"""

import os
import time
from contextlib import suppress
from typing import NamedTuple

TICKS = os.sysconf("SC_CLK_TCK")
ENDED = frozenset("ZXx")


class Row(NamedTuple):
    """One process."""

    pid: int
    name: str
    """Of its program, or any other that it chose."""
    parent: int
    began: int
    """In ticks since the machine started."""
    has_ended: bool

    @property
    def age_s(self) -> float:
        return time.clock_gettime(time.CLOCK_BOOTTIME) - self.began / TICKS


def process_rows() -> dict[int, Row]:
    """Return all processes, by id. Raises OSError."""
    found = {}
    for entry in os.listdir("/proc"):
        if entry.isdecimal():
            with suppress(OSError):  # it ends just now
                found[int(entry)] = row_of(int(entry))
    return found


def row_of(pid: int) -> Row:
    """Return one process. Raises OSError: there is none (FileNotFoundError), or it cannot be read."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            text = file.read()
    except ProcessLookupError as error:  # it ended while it was read
        raise FileNotFoundError(*error.args) from None
    head, _, rest = text.rpartition(b")")
    fields = rest.split()
    name = head.partition(b"(")[2].decode(errors="replace")
    return Row(pid, name, int(fields[1]), int(fields[19]), chr(fields[0][0]) in ENDED)
