"""Locates everything in the data directory, and names the process that owns it.

1. One process owns it, by a lock on the folder itself (infra.disk.folder_lock), until that process ends.
2. `run.json` (0600) tells others how to reach the owner. The owner holds a lock on that file, too. It counts
   only while that lock is held: after the owner was killed, it leads nowhere, even if pid or port are in use
   again. The owner removes only the file that it wrote.
3. Folders are made 0700. An error about an unwritable path names the variable that sets it, owner, mode and
   cure.
4. Each folder may be put elsewhere (`*_PATH` variables); nothing else decides a path.
"""

import errno
import getpass
import json
import os
import pwd
import shlex
import shutil
import stat
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from infra.disk.durable import write_locked
from infra.disk.evidence_copy import EvidenceFolders, history_lines, stored_at
from infra.disk.folder_lock import is_locked, lock_folder, names
from infra.disk.scrub_place import DiskScrubPlace
from infra.disk.writable import check_writable
from schemas.errors import FULL_ERRNOS, Misuse, NoSpace, Unavailable, raise_together
from schemas.ports.files import Disk

FOLDERS: Final = ("nats", "keys", "hosts", "chunks", "manifests", "quarantine", "logs", "temp", "scrub")
PATH_VARIABLES: Final = {
    "nats": "SESSION_STORAGE_PATH",
    "keys": "KEYS_PATH",
    "chunks": "CHUNK_STORAGE_PATH",
    "manifests": "LUCID_MANIFEST_PATH",
    "temp": "TEMP_STORAGE_PATH",
}
"""By folder, the variable that puts it elsewhere."""
DATA: Final = "LUCID_DATA"
RUN: Final = "run.json"
PROBED_S, AGAIN_S = 0.5, 0.02
"""A process that asks whether the folder is owned holds it for a moment, so locking is retried that long."""


class DataDir:
    """The paths below one data directory. Making the object touches nothing."""

    def __init__(self, path: Path, elsewhere: Mapping[str, Path] | None = None) -> None:
        self.path: Final = path.expanduser().absolute()
        self._elsewhere: Final = {name: where.expanduser() for name, where in (elsewhere or {}).items()}
        self._lock_fd = self._run_fd = -1

    def folder(self, name: str) -> Path:
        """Return one of FOLDERS, made if need be. Raises Misuse (config.path): it cannot be written."""
        where = self.where(name)
        make_writable_folder(where, PATH_VARIABLES[name] if name in self._elsewhere else DATA)
        return where

    def check(self, names: Iterable[str]) -> None:
        """Make the data folder and these of FOLDERS.

        Raises Misuse (config.path), Misuses: all that cannot be written.
        """
        wrong: list[Misuse] = []
        try:
            make_writable_folder(self.path)
        except Misuse as error:  # its children cannot be made either
            wrong.append(error)
        for name in names:
            if not wrong or name in self._elsewhere:
                try:
                    self.folder(name)
                except Misuse as error:
                    wrong.append(error)
        raise_together(wrong)

    def where(self, name: str) -> Path:
        """Return where one of FOLDERS is, or would be."""
        assert name in FOLDERS, name
        return self._elsewhere.get(name, self.path / name)

    @property
    def nats(self) -> Path:
        return self.folder("nats")

    @property
    def keys(self) -> Path:
        """Return where the keys are. Not made here: a folder that is missing must be seen to be missing.

        Nor must it be writable: keys can be read from a disk that is mounted read-only.
        """
        where = self.where("keys")
        if os.path.lexists(where) and not where.is_dir():
            raise Misuse(f"{where} is not a folder", code="config.path")
        return where

    @property
    def chunks(self) -> Path:
        return self.folder("chunks")

    @property
    def manifests(self) -> Path:
        return self.folder("manifests")

    @property
    def quarantine(self) -> Path:
        return self.folder("quarantine")

    @property
    def logs(self) -> Path:
        return self.folder("logs")

    @property
    def temp(self) -> Path:
        return self.folder("temp")

    def host(self, host: str) -> Path:
        """Return the folder of one host's evidence key and counter."""
        where = self.folder("hosts") / host
        make_writable_folder(where)
        return where

    def session_evidence(self, uid: bytes, events: Iterable[bytes]) -> EvidenceFolders:
        return stored_at(self.manifests, self.chunks, uid, history_lines(events))

    def scrub_place(self) -> DiskScrubPlace:
        return DiskScrubPlace(self.where("scrub"))

    def user(self) -> str:
        try:
            return getpass.getuser()
        except (KeyError, OSError):
            return f"uid-{os.getuid()}"

    def lock(self) -> None:
        make_writable_folder(self.path)
        end_s = time.monotonic() + PROBED_S
        while True:
            try:
                self._lock_fd = lock_folder(self.path)
                return
            except BlockingIOError:
                if time.monotonic() > end_s:
                    break
            time.sleep(AGAIN_S)
        raise Unavailable(
            f"{self.path} is in use by another lucid",
            code="datadir.locked",
            hint="use that one, stop it, or set LUCID_DATA to another folder",
        )

    def unlock(self) -> None:
        self.remove_run()
        if self._lock_fd >= 0:
            os.close(self._lock_fd)
            self._lock_fd = -1

    def is_owned(self) -> bool:
        return self._lock_fd >= 0 or is_locked(self.path)

    def is_there(self) -> bool:
        return self._lock_fd >= 0 and names(self.path, self._lock_fd)

    def write_run(self, run: Mapping[str, Any]) -> None:
        new = write_locked(self.path / RUN, json.dumps(dict(run), indent=2).encode())
        old, self._run_fd = self._run_fd, new
        if old >= 0:
            os.close(old)

    def remove_run(self) -> None:
        if self._run_fd < 0:
            return
        if names(self.path / RUN, self._run_fd):  # only the owner replaces it
            (self.path / RUN).unlink()
        os.close(self._run_fd)
        self._run_fd = -1

    def has_run(self) -> bool:
        return self._run_fd >= 0 and names(self.path / RUN, self._run_fd)

    def read_run(self) -> dict[str, Any] | None:
        path = self.path / RUN
        try:
            run: dict[str, Any] = json.loads(path.read_bytes())
        except (OSError, ValueError):
            return None
        # if the owner changes right here, the next try finds the text of the new one
        return run if is_locked(path) else None

    def check_writable(self, name: str = "") -> None:
        check_writable(self.where(name) if name else self.path)

    def free_bytes(self) -> int:
        return free_bytes(self.path)

    def disks(self) -> dict[str, Disk]:
        found: dict[str, Disk] = {}
        devices: set[int] = set()
        for name, path in (("data", self.path), *((name, self.where(name)) for name in FOLDERS)):
            there = nearest_there(path)
            device = there.stat().st_dev
            if device not in devices:
                devices.add(device)
                usage = shutil.disk_usage(there)
                found[name] = Disk(usage.free, usage.total)
        return found


def free_bytes(path: Path) -> int:
    """Return the free space for this user on the disk that holds `path` or its nearest existing parent."""
    return shutil.disk_usage(nearest_there(path)).free


def make_writable_folder(path: Path, variable: str = DATA) -> None:
    """Make the folder if need be. variable: the one that sets the path; empty: a command named it.

    Raises Misuse (config.path; the hint is the cure), NoSpace (disk.full).
    """
    named = f"{variable}: {path}" if variable else str(path)
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        if os.access(path, os.W_OK | os.X_OK):
            return
        if os.statvfs(path).f_flag & os.ST_RDONLY:
            number, why = errno.EROFS, os.strerror(errno.EROFS)
        else:
            number, why = errno.EACCES, "it cannot be written"
    except (FileExistsError, NotADirectoryError):
        raise Misuse(f"{named} is not a folder, and cannot become one", code="config.path") from None
    except OSError as error:
        if error.errno in FULL_ERRNOS:
            raise NoSpace(f"{path} cannot be made: {error.strerror}", code="disk.full") from None
        number, why = error.errno or 0, error.strerror or str(error)
    nearest = nearest_there(path)
    held = nearest.stat()
    ours_to_have = number == errno.EACCES and (nearest == path or os.access(nearest, os.X_OK))
    raise Misuse(
        f"{named}: {why}; {nearest} belongs to {_user(held.st_uid)}, mode {stat.S_IMODE(held.st_mode):o}, "
        f"and this is {_user(os.geteuid())}",
        code="config.path",
        hint=_command_that_helps(path) if ours_to_have else _other_folder(variable),
    )


def nearest_there(path: Path) -> Path:
    """Return the path, or its nearest visible parent."""
    while not os.path.exists(path):  # Path.exists raises where we may not look
        path = path.parent
    return path


def _command_that_helps(path: Path) -> str:
    """Return the command that gives us the folder; its parents stay as they are."""
    folder = shlex.quote(str(path))
    make = "" if os.path.exists(path) else f"mkdir -p {folder} && "
    us = _name(os.geteuid()) or os.geteuid()
    return f"{make}chown {us} {folder} && chmod u+rwx {folder}"


def _other_folder(variable: str) -> str:
    return f"set {variable} to another folder" if variable else "name another folder"


def _user(uid: int) -> str:
    """An account for people: alice (uid 1000)."""
    name = _name(uid)
    return f"{name} (uid {uid})" if name else f"uid {uid}"


def _name(uid: int) -> str:
    """The name of an account; empty: it has none, as in most containers."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return ""
