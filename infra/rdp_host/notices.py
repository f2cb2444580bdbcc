"""Hears notices that an RDP session begins or ends: lines in a named pipe, which a hook of PAM writes.

1. A notice has no content that counts: its reader looks at the host itself. A forged one costs one look.
2. The hook never waits: it opens the pipe for reading and writing, and the agent empties it.
3. The pipe belongs to this process's user, and nobody else may write into it.
"""

import asyncio
import os
import stat
from pathlib import Path

from schemas.errors import Unavailable

READ_BYTES = 4096


class Notices:
    """The pipe, open until `close`."""

    def __init__(self, path: Path) -> None:
        """Make the pipe if there is none. Raises Unavailable (agent.notices)."""
        self._heard = asyncio.Event()
        try:
            if not path.exists():
                path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                os.mkfifo(path, 0o600)
            # also for writing: otherwise the pipe is at its end whenever no hook runs
            self._pipe = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError as error:
            raise _unusable(path, error.strerror or str(error)) from None
        about = os.fstat(self._pipe)
        if not stat.S_ISFIFO(about.st_mode) or about.st_uid != os.geteuid() or about.st_mode & 0o022:
            os.close(self._pipe)
            raise _unusable(path, "it is no pipe of this user alone")
        asyncio.get_running_loop().add_reader(self._pipe, self._empty)

    async def heard(self) -> None:
        """Return when there was a notice since the last call."""
        await self._heard.wait()
        self._heard.clear()

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._pipe)
        os.close(self._pipe)

    def _empty(self) -> None:
        try:
            os.read(self._pipe, READ_BYTES)
        except BlockingIOError:
            return
        self._heard.set()


def _unusable(path: Path, why: str) -> Unavailable:
    return Unavailable(
        f"notices cannot be heard at {path}: {why}",
        code="agent.notices",
        hint="name another place: lucid agent run --notices PATH",
    )
