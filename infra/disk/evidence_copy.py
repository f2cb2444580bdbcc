"""Reads and writes evidence on disk: an evidence copy, or the installation's own store.

    <copy>/manifests/<seal_no>.dsse.json   chunks/<index:010>   history.ndjson   keys.json (on request only)
    <store>/manifests/<uid>/<seal_no>      chunks/<uid>/<index:010>              history: the event log

1. Reading follows no link, waits on no pipe, and takes no more bytes than its limit. A file that is there and
   cannot be read is Unreadable: then there is no verdict.
2. A copy is built beside its place and renamed in one step: a folder of that name is whole, or absent.
3. A copy holds the bytes of the store; handlers.verify.session judges whether they are true.

Source: format.md §11.
"""

import errno
import os
import re
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from infra.disk.durable import new_folder, write_file
from schemas.errors import EvidenceFalse, Misuse, NotFound, Unreadable
from schemas.format import dsse
from schemas.format.chunk_header import MAX_SEALED
from schemas.format.file_names import chunk_file, copied_chunk, copied_manifest
from schemas.ports.evidence import Evidence, Listing

MANIFESTS, CHUNKS, HISTORY, KEYS = "manifests", "chunks", "history.ndjson", "keys.json"
NAMED = {MANIFESTS, CHUNKS, HISTORY, KEYS}
SEAL_NAME = re.compile(r"([1-9][0-9]{0,8})\.dsse\.json")
STORED_SEAL_NAME = re.compile(r"([1-9][0-9]{0,8})")
CHUNK_NAME = re.compile(r"([0-9]{10})")
SEAL_FORM = re.compile(r"[0-9]+\.dsse\.json")
NUMBER_FORM = re.compile(r"[0-9]+")
NO_PLAIN_FILE = "it is not a regular file (links are not followed)"
NO_FOLDER = "it is not a folder (links are not followed)"
COPY_HINT = "lucid export SESSION --evidence DIR"


class EvidenceFolders:
    """The port Evidence over two folders and a history."""

    def __init__(
        self, manifests: Path, chunks: Path, history: Path | Sequence[bytes], *, copy: Path | None = None
    ) -> None:
        """copy: the folder around them; None: they lie in the installation's store."""
        self._manifests = manifests
        self._chunks = chunks
        self._history = history
        self._copy = copy
        self._suffix = "" if copy is None else ".dsse.json"

    def strays(self) -> tuple[str, ...]:
        if self._copy is None:
            return ()
        with _readable(self._copy):
            return tuple(name for name in os.listdir(self._copy) if name not in NAMED)

    def seals(self) -> Listing:
        if self._copy is None:
            return _listing(self._manifests, STORED_SEAL_NAME, NUMBER_FORM)
        return _listing(self._manifests, SEAL_NAME, SEAL_FORM)

    def manifest(self, seal_no: int, limit: int) -> bytes | None:
        return _read_in(self._manifests, f"{seal_no}{self._suffix}", limit)

    def indices(self) -> Listing:
        return _listing(self._chunks, CHUNK_NAME, NUMBER_FORM)

    def chunk(self, index: int, limit: int) -> bytes | None:
        return _read_in(self._chunks, chunk_file(index), limit)

    def history(self, line_limit: int) -> Iterator[bytes] | None:
        if not isinstance(self._history, Path):
            return iter(self._history)
        with _readable(self._history):
            file = _open_plain(self._history)
        return None if file is None else _lines(self._history, file, line_limit)


def copy_at(directory: Path) -> EvidenceFolders:
    """Return the evidence copy in `directory`.

    Raises NotFound (evidence.absent), Misuse (evidence.none): the folder holds no evidence; Unreadable.
    """
    if not directory.is_dir():
        raise NotFound(f"{directory} is not a folder", code="evidence.absent", hint=COPY_HINT)
    found = EvidenceFolders(directory / MANIFESTS, directory / CHUNKS, directory / HISTORY, copy=directory)
    if not found.seals().numbers:
        raise Misuse(
            f"{directory} is not an evidence copy: {copied_manifest(1)} is missing",
            code="evidence.none",
            hint=COPY_HINT,
        )
    return found


def stored_at(manifests: Path, chunks: Path, uid: bytes, history: Sequence[bytes]) -> EvidenceFolders:
    """Return a session in the installation's store. history: its events, each with its line end."""
    return EvidenceFolders(manifests / uid.hex(), chunks / uid.hex(), history)


def write_copy(evidence: Evidence, target: Path, *, keys: bytes | None = None) -> int:
    """Write an evidence copy to `target`, which must not exist yet; return the bytes written.

    keys: keys.json: the holder of the copy may watch. Raises EvidenceFalse (manifest.missing), Misuse
    (export.exists), NotFound, Unreadable, NoSpace (export.space).
    """
    seals = sorted(evidence.seals().numbers)
    if not seals:
        raise EvidenceFalse("there is no manifest of a sealed session", code="manifest.missing")
    written = 0
    with new_folder(target) as folder:
        for seal_no in seals:
            name = copied_manifest(seal_no)
            manifest = evidence.manifest(seal_no, dsse.MAX_BYTES[dsse.MANIFEST])
            written += write_file(folder / name, _present(manifest, name))
        (folder / CHUNKS).mkdir()
        for index in sorted(evidence.indices().numbers):
            name = copied_chunk(index)
            written += write_file(folder / name, _present(evidence.chunk(index, MAX_SEALED), name))
        lines = evidence.history(dsse.MAX_BYTES[dsse.MANIFEST])
        written += write_file(folder / HISTORY, b"".join(lines or ()))
        if keys is not None:
            written += write_file(folder / KEYS, keys)
    return written


def history_lines(events: Iterable[bytes]) -> list[bytes]:
    """Return the event log as a history: one stored body a line."""
    return [event + b"\n" for event in events]


def read_bounded(path: Path, limit: int, *, links: bool = False) -> bytes | None:
    """Return the first limit + 1 bytes of a regular file; None: it is absent.

    links: follow a link, as for a file that a user named. Raises OSError, also for a folder, pipe or device.
    """
    file = _open_plain(path, links=links)
    return None if file is None else _read_all(file, limit)


def mode_at(path: Path) -> int:
    """Return the st_mode of the file, after following links; 0: it is absent. Raises Unreadable."""
    try:
        return path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return 0
    except OSError as error:
        raise unreadable(path, error) from None


def unreadable(path: Path, error: OSError, code: str = "evidence.unreadable") -> Unreadable:
    """Return the error as Unreadable: the content of `path` is unknown."""
    why = error.strerror or type(error).__name__
    return Unreadable(f"{path} cannot be read: {why}", code=code, place=str(path))


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise unreadable(path, error) from None


def _read_in(folder: Path, name: str, limit: int) -> bytes | None:
    """Read a file in a folder; neither may be a link. Raises Unreadable."""
    with _readable(folder):
        opened = _open_folder(folder)
    if opened is None:
        return None
    try:
        with _readable(folder / name):
            file = _open_plain(name, folder=opened)
            return None if file is None else _read_all(file, limit)
    finally:
        os.close(opened)


def _open_folder(path: Path) -> int | None:
    try:
        return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno in (errno.ENOTDIR, errno.ELOOP):
            raise OSError(None, NO_FOLDER) from None
        raise


def _open_plain(path: Path | str, *, folder: int | None = None, links: bool = False) -> int | None:
    """Open a regular file, without waiting for the writer of a pipe. folder: the start of `path`."""
    follow = 0 if links else os.O_NOFOLLOW
    try:
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | follow, dir_fd=folder)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):  # a link; a socket
            raise OSError(None, NO_PLAIN_FILE) from None
        raise
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise OSError(None, NO_PLAIN_FILE)
    return file


def _read_all(file: int, limit: int) -> bytes:
    with os.fdopen(file, "rb") as stream:
        return stream.read(limit + 1)


def _lines(path: Path, file: int, limit: int) -> Iterator[bytes]:
    with os.fdopen(file, "rb") as stream:
        while True:
            with _readable(path):
                line = stream.readline(limit)
            if not line:
                return
            yield line


def _listing(folder: Path, layout: re.Pattern[str], form: re.Pattern[str]) -> Listing:
    """layout: names with their number; form: names that look like evidence."""
    with _readable(folder):
        opened = _open_folder(folder)
        if opened is None:
            return Listing(frozenset())
        try:
            names = os.listdir(opened)
        finally:
            os.close(opened)
    named = {name: int(match[1]) for name in names if (match := layout.fullmatch(name))}
    others = [name for name in names if name not in named]
    return Listing(
        frozenset(named.values()),
        tuple(name for name in others if form.fullmatch(name)),
        tuple(name for name in others if not form.fullmatch(name)),
    )


def _present(raw: bytes | None, name: str) -> bytes:
    if raw is None:
        raise NotFound(f"{name} was removed while it was copied", code="evidence.absent")
    return raw
