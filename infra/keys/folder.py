"""Holds the state of the folder `keys/` as a whole: its installation, its notes, the files that a copy has.

    keys/installation     16 random bytes, made at the first start
    keys/joined           empty; a log has named this folder: it belongs to that log for good
    keys/erased           a number: all erasures up to this place of the log are done here
    keys/restoring        empty; a copy is being put back: no process uses the folder
    keys/newest           empty; a person confirmed that there is no newer copy: the next start may lack keys
    keys/mirrored         a random name, in hex; there is a second folder with the same note: neither is used
                          without the other, nor with an earlier one
    keys/moving, moved, arriving    while the folder is moved, and after it (infra.keys.place)

1. `installation` and `joined` are made once, durably, and never overwritten; `erased` is replaced atomically.
2. A copy of this folder, made in any way, holds the number of its own time, which is never too high.
3. A file that replaces a damaged one overwrites its bytes first.
4. A role holds a shared flock on the folder while it runs, so that nobody moves the folder away.
"""

import contextlib
import errno
import fcntl
import os
import re
import secrets
import shlex
import weakref
from collections.abc import Iterator
from pathlib import Path

from infra.blobs import direct_io
from infra.blobs.disk import DiskBlobs
from infra.disk.data_dir import nearest_there
from infra.disk.durable import opened_folder, write_private
from infra.disk.errors import translated
from infra.keys.json_files import damaged
from infra.keys.medium import medium
from infra.keys.overwriting import overwrite
from schemas.errors import Denied, Unavailable

NAME_BYTES = 16
INSTALLATION, JOINED, ERASED = "installation", "joined", "erased"
RESTORING, NEWEST = "restoring", "newest"
MOVING, MOVED, ARRIVING, MIRRORED = "moving", "moved", "arriving", "mirrored"
COPIED = re.compile(
    r"installation|salt|(index|root|signer(-\d{8})?|master-\d{8}|revoked-[a-z0-9-]{1,80})\.json"
)
"""The files of a copy, apart from the key files of sessions."""


class KeyFolder:
    """The folder `keys/` of a data directory, or its mirror."""

    def __init__(self, directory: Path, *, is_alone: bool = True, setting: str = "KEYS_PATH") -> None:
        """is_alone: no mirror of it is in use. setting: the one that names this folder."""
        self.path, self._is_alone, self._setting = directory, is_alone, setting
        self._files = DiskBlobs(directory, area="keys")
        self._release: weakref.finalize[[int], KeyFolder] | None = None

    def require_usable(self) -> None:
        self._require_no_move()
        moved = self._files.read(MOVED)
        if moved is not None:
            to = moved.decode()
            raise Denied(
                f"the keys of {self.path} were moved to {to}",
                code="keys.moved",
                hint=f"set {self._setting}={shlex.quote(to)}",
            )
        if self._is_alone and self.is_mirrored():
            raise Denied(
                f"{self.path} has a mirror, which must be erased with it",
                code="keys.mirror_unset",
                hint="set LUCID_KEYS_MIRROR to the mirror; to do without it: lucid keys mirror --end",
            )

    def reconcile(self) -> None:
        pass

    def require_writable(self) -> None:
        with translated(self.path, "keys"):
            if os.statvfs(self.path).f_flag & os.ST_RDONLY:
                raise OSError(errno.EROFS, os.strerror(errno.EROFS))
            if not os.access(self.path, os.R_OK | os.W_OK | os.X_OK):
                raise OSError(errno.EACCES, os.strerror(errno.EACCES))

    def use(self) -> None:
        self.require_writable()
        if self._release is not None:
            return
        with translated(self.path, "keys"):
            folder = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                fcntl.flock(folder, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(folder)
                raise Unavailable(
                    f"{self.path} is being moved, or filled",
                    code="keys.busy",
                    hint="try again when that is complete",
                ) from None
            except BaseException:
                os.close(folder)
                raise
        self._release = weakref.finalize(self, os.close, folder)
        self.require_usable()  # it may have been moved before the lock

    def release(self) -> None:
        if self._release is not None:
            self._release()
            self._release = None

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        with contextlib.ExitStack() as held:
            with translated(self.path, "keys"), contextlib.suppress(FileNotFoundError):
                folder = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                held.callback(os.close, folder)
                try:
                    fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    raise Unavailable(
                        f"{self.path} is in use",
                        code="keys.busy",
                        hint="stop the system that uses it, then try again",
                    ) from None
            yield

    def installation(self) -> bytes:
        name = self._files.read(INSTALLATION)
        if name is not None and len(name) != NAME_BYTES:
            raise damaged(self.path / INSTALLATION)
        return name or b""

    def begin(self) -> None:
        self._files.put(INSTALLATION, secrets.token_bytes(NAME_BYTES))

    def joined(self) -> bool:
        return self._files.read(JOINED) is not None

    def join(self) -> None:
        self._files.put(JOINED, b"")

    def erased_up_to(self) -> int:
        number = self._files.read(ERASED)
        if number is None:
            return 0
        if not number.isdigit():
            raise damaged(self.path / ERASED)
        return int(number)

    def note_erased(self, up_to: int) -> None:
        with translated(self.path, "keys"):
            write_private(self.path / ERASED, str(up_to).encode())

    def unproven(self) -> str:
        with translated(self.path, "keys"), opened_folder(nearest_there(self.path)) as folder:
            return medium(folder).unproven

    def restoring(self) -> bool:
        return self._files.read(RESTORING) is not None

    def begin_restore(self) -> None:
        self._require_no_move()
        self._files.put(RESTORING, b"")

    def end_restore(self) -> None:
        self._files.remove(MOVED)  # the keys are here again
        self._files.remove(RESTORING)

    def is_newest(self) -> bool:
        return self._files.read(NEWEST) is not None

    def begin_newest(self) -> None:
        self._files.put(NEWEST, b"")

    def end_newest(self) -> None:
        self._files.remove(NEWEST)

    def is_mirrored(self) -> bool:
        return self._files.read(MIRRORED) is not None

    def pair(self) -> str:
        return (self._files.read(MIRRORED) or b"").decode("ascii", "replace")

    def note_mirrored(self, name: str) -> None:
        self._files.put(MIRRORED, name.encode())
        if self.pair() != name:
            with translated(self.path, "keys"):
                write_private(self.path / MIRRORED, name.encode())

    def begin_pair(self) -> str:
        """Name this folder and another together, unless they are named; return the name."""
        self._files.put(MIRRORED, secrets.token_hex(NAME_BYTES).encode())
        return self.pair()

    def forget_mirror(self) -> None:
        self._files.remove(MIRRORED)

    def files(self) -> Iterator[tuple[str, bytes]]:
        with translated(self.path, "keys"):
            names = sorted(name for name in os.listdir(self.path) if COPIED.fullmatch(name))
        for name in names:
            content = self._files.read(name)
            if content is not None:
                yield name, content

    def put_back(self, name: str, content: bytes) -> None:
        assert COPIED.fullmatch(name), name
        if self._files.read(name) not in (None, content):
            self._overwrite(name)
            # After a crash here the folder is still being restored, and the next try puts the file back.
            self._files.remove(name)
        self._files.put(name, content)

    def _overwrite(self, name: str) -> None:
        with (
            translated(self.path, "keys"),
            direct_io.opened_file(self.path / name, os.O_RDWR | os.O_NOFOLLOW) as file,
        ):
            overwrite(file)

    def _require_no_move(self) -> None:
        moving = self._files.read(MOVING)
        if moving is not None:
            command = f"lucid keys move {shlex.quote(moving.decode())} (or --undo)"
            if self._setting != "KEYS_PATH":
                command = f"KEYS_PATH={shlex.quote(str(self.path))} {command}"
            raise Denied(
                f"{self.path} is being moved to {moving.decode()}, or that was interrupted",
                code="keys.moving",
                hint=f"run it once more: {command}",
            )
        arriving = self._files.read(ARRIVING)
        if arriving is not None:
            raise Denied(
                f"{self.path} is being filled or emptied, or that was interrupted",
                code="keys.moving",
                hint=f"with the same settings run it once more: {arriving.decode()}",
            )
