"""Owns evidence on disk: reading a copy or the installation's own store, and writing a copy.

    <copy>/manifests/<seal_no>.dsse.json   chunks/<index:010>   history.ndjson   keys.json (only if asked for)
    <store>/manifests/<uid>/<seal_no>      chunks/<uid>/<index:010>              history: the event log

1. Reading follows no link, waits on no pipe and takes no more bytes than it was told to.
2. A copy is made beside its place under another name and gets its own in one step: a directory of that
   name is whole, or it is not there.
3. A copy holds what the store holds, byte for byte: whether it is true is for handlers.verify to say.

Source: format.md §11.
"""

import os
import re
import stat
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from handlers.verify_reader import Evidence, Listing
from schemas import dsse
from schemas.envelope import MAX_SEALED
from schemas.errors import NotFound
from schemas.names import chunk_file, copied_chunk, copied_manifest
from streams.atomic import new_folder, write_file

MANIFESTS, CHUNKS, HISTORY, KEYS = "manifests", "chunks", "history.ndjson", "keys.json"
SEAL_NAME = re.compile(r"([1-9][0-9]{0,8})\.dsse\.json")
STORED_SEAL_NAME = re.compile(r"([1-9][0-9]{0,8})")
CHUNK_NAME = re.compile(r"([0-9]{10})")


class EvidenceFolders:
    """Evidence in two folders and a history; a handlers.verify_reader.Evidence."""

    def __init__(
        self, manifests: Path, chunks: Path, history: Path | Sequence[bytes], *, stored: bool = False
    ) -> None:
        self._manifests = manifests
        self._chunks = chunks
        self._history = history
        self._seal_name = STORED_SEAL_NAME if stored else SEAL_NAME
        self._suffix = "" if stored else ".dsse.json"

    def seals(self) -> Listing:
        return _listing(self._manifests, self._seal_name)

    def manifest(self, seal_no: int, limit: int) -> bytes | None:
        return read_bounded(self._manifests / f"{seal_no}{self._suffix}", limit)

    def indices(self) -> Listing:
        return _listing(self._chunks, CHUNK_NAME)

    def chunk(self, index: int, limit: int) -> bytes | None:
        return read_bounded(self._chunks / chunk_file(index), limit)

    def history(self, line_limit: int) -> Iterator[bytes] | None:
        if not isinstance(self._history, Path):
            return iter(self._history)
        file = _open_plain(self._history)
        return None if file is None else _lines(file, line_limit)


def copy_at(directory: Path) -> EvidenceFolders:
    """The evidence copy in `directory`. Raises NotFound (evidence.absent)."""
    if not directory.is_dir():
        raise NotFound(
            f"{directory} is no directory", code="evidence.absent", hint="lucid export SESSION --evidence DIR"
        )
    return EvidenceFolders(directory / MANIFESTS, directory / CHUNKS, directory / HISTORY)


def stored_at(manifests: Path, chunks: Path, uid: bytes, history: Sequence[bytes]) -> EvidenceFolders:
    """A session in the installation's own store. history: its events, each ended by a line end."""
    return EvidenceFolders(manifests / uid.hex(), chunks / uid.hex(), history, stored=True)


def write_copy(evidence: Evidence, target: Path, *, keys: bytes | None = None) -> int:
    """Write an evidence copy to `target`, which must not be there yet; bytes written.

    keys: keys.json, for a copy whose holder may watch. Raises Misuse (export.exists), NotFound
    NoSpace (export.space).
    """
    seals = sorted(evidence.seals().numbers)
    if not seals:
        raise NotFound("there is no manifest: the session is not sealed", code="evidence.unsealed")
    written = 0
    with new_folder(target) as folder:
        for seal_no in seals:
            name = copied_manifest(seal_no)
            manifest = evidence.manifest(seal_no, dsse.MAX_BYTES[dsse.MANIFEST])
            written += write_file(folder / name, _there(manifest, name))
        (folder / CHUNKS).mkdir()
        for index in sorted(evidence.indices().numbers):
            name = copied_chunk(index)
            written += write_file(folder / name, _there(evidence.chunk(index, MAX_SEALED), name))
        lines = evidence.history(dsse.MAX_BYTES[dsse.MANIFEST])
        written += write_file(folder / HISTORY, b"".join(lines or ()))
        if keys is not None:
            written += write_file(folder / KEYS, keys)
    return written


def history_lines(events: Iterable[bytes]) -> list[bytes]:
    """The event log as a history: one stored body a line."""
    return [event + b"\n" for event in events]


def read_bounded(path: Path, limit: int) -> bytes | None:
    """A plain file's first limit + 1 bytes; None: there is none. Raises OSError, also for what is no file."""
    file = _open_plain(path)
    if file is None:
        return None
    with os.fdopen(file, "rb") as stream:
        return stream.read(limit + 1)


def _open_plain(path: Path) -> int | None:
    """A file that is one: links are not followed, and opening a pipe does not wait for its writer."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise OSError(None, "it is no plain file")
    return file


def _lines(file: int, limit: int) -> Iterator[bytes]:
    with os.fdopen(file, "rb") as stream:
        while line := stream.readline(limit):
            yield line


def _listing(folder: Path, form: re.Pattern[str]) -> Listing:
    try:
        names = os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return Listing(frozenset())
    matched = {name: form.fullmatch(name) for name in names}
    return Listing(
        frozenset(int(match[1]) for match in matched.values() if match),
        tuple(name for name, match in matched.items() if not match),
    )


def _there(raw: bytes | None, name: str) -> bytes:
    if raw is None:
        raise NotFound(f"{name} was removed while it was copied", code="evidence.absent")
    return raw
