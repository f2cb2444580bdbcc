"""Owns what a replaced file leaves on the disk: blocks to which no name leads, and which still can be read.

1. nats-server erases a message by writing its block file anew and renaming it over the old one. The blocks
   of the old file keep the message until something else needs them.
2. So the block files are held open while messages are erased; one that lost its name is overwritten in place,
   durably, before it is let go.
3. It reaches as far as overwriting in place does: snapshots, copy-on-write and flash keep copies of their
   own. A crash between erasing and overwriting leaves the residue.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

NATS_MESSAGES = "store/jetstream/$G/streams/{stream}/msgs"
"""Below the data of a server that we run, where a stream's block files lie."""


@contextmanager
def overwriting(nats: Path, stream: str) -> Iterator[None]:
    """Leave nothing of the block files that are replaced or removed within. Without such files: nothing."""
    folder = nats / NATS_MESSAGES.format(stream=stream)
    held = [os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC) for path in folder.glob("*.blk")]
    try:
        yield
    finally:
        for file in held:
            status = os.fstat(file)
            if status.st_nlink == 0:
                os.pwrite(file, bytes(status.st_size), 0)
                os.fsync(file)  # closed without it, pages of a file without a name are never written
            os.close(file)
