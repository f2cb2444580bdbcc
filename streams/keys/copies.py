"""Makes sealed copies of `keys/`, and restores them.

    make      KeysCopied in the log → every file is read and sealed → the copy has its name
    restore   the whole copy is opened and compared → keys/restoring → master key and the rest → key files
              → restoring goes

1. The log knows of a copy before its first key is read, and a key that is made after that is not in it. So
   the copies that may hold a session's key stand in the log behind the session's first event.
2. Nothing is written before the whole copy was opened, and nothing of another installation ever.
3. A key file that is erased here stays erased. A newer one stays, unless it does not open: copies may be
   restored in any order. After a crash, restoring the same copy again completes it; until then no role
   starts.
4. Keys that were erased after the copy was made are erased again by the next start (streams/keys/folder.py).
"""

import asyncio
import json
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from itertools import islice
from pathlib import Path
from typing import BinaryIO, NamedTuple

from handlers.crypto.key_copy import (
    HEADER_BYTES,
    SESSIONS,
    Record,
    copy_key,
    new_header,
    open_copy,
    seal_copy,
)
from handlers.crypto.key_file import open_key_file, read_head
from schemas import subjects
from schemas.config.logs import logger
from schemas.errors import Denied, LucidError, Misuse, NotFound, Rejected
from schemas.events.installation import KeysCopied, read_installation_event
from schemas.format.jcs import jcs
from schemas.format.key_copy import KeyCopy, read_key_copy
from schemas.ports import Jet, KeyFiles, KeyFolder, Keyring, Reader
from streams.scheduling.clock import now_us

COPY, INSTALLATION = "copy", "installation"
INSTALLATION_BYTES, SALT_BYTES = 16, 32
"""Sizes of the files that are not JSON."""
WRITERS, BATCH = 8, 512
"""Threads that restore key files: each waits for the disk. Records in memory at once."""

log = logger("lucid.keys")


class Copied(NamedTuple):
    """The contents of a copy."""

    description: KeyCopy
    sessions: int
    """Keys of sessions, erased ones not counted."""


async def make_copy(
    jet: Jet,
    folder: KeyFolder,
    files: KeyFiles,
    file: BinaryIO,
    passphrase: str,
    *,
    label: str,
    until_us: int,
) -> Copied:
    """Seal a copy into `file`, which is new. The folder must have been checked (LoggedKeyFolder.check).

    Raises Misuse (keys.passphrase), OSError, Unavailable.
    """
    description = KeyCopy(
        installation=await asyncio.to_thread(folder.installation),
        label=label,
        made_us=now_us(),
        until_us=until_us,
    )
    header = new_header()
    key = await asyncio.to_thread(copy_key, header, passphrase)
    event = KeysCopied(label=label, made_us=description.made_us, until_us=until_us)

    def write() -> int:
        sessions = 0

        def records() -> Iterator[Record]:
            nonlocal sessions
            yield Record(COPY, jcs(description.model_dump(mode="json")))
            for record in _held(folder, files, uids):
                sessions += record.name.startswith(SESSIONS) and bool(record.content)
                yield record

        file.write(header)
        for piece in seal_copy(header, key, records()):
            file.write(piece)
        return sessions

    uids = await asyncio.to_thread(lambda: list(files.uids()))
    await jet.publish(subjects.KEY_COPIES, jcs(event.model_dump(mode="json")))
    sessions = await asyncio.to_thread(write)
    log.info("keys_copied", label=label, sessions=sessions, until_us=until_us)
    return Copied(description, sessions)


async def copies_made(jet: Reader, from_seq: int = 1) -> list[KeysCopied]:
    """The copies that the log knows of, from a place in it on, oldest first."""
    found = []
    async for message in jet.read_all(subjects.LIFECYCLE, subjects.KEY_COPIES, from_seq):
        with suppress(Rejected):  # a malformed event hides no other copy
            event = read_installation_event(message.data)
            if isinstance(event, KeysCopied):
                found.append(event)
    return found


async def copies_end_us(jet: Reader, session: str) -> int:
    """When the last copy that may hold this session's key expires; 0: there is none."""
    first, _ = await jet.batch(subjects.LIFECYCLE, subjects.lifecycle(session), max_messages=1)
    return max((one.until_us for one in await copies_made(jet, first[0].seq if first else 1)), default=0)


def restore(
    folder: KeyFolder,
    files: KeyFiles,
    keyring: Keyring,
    source: Path,
    passphrase: str,
    *,
    newest: bool = False,
) -> Copied:
    """Restore a copy; no role may be running. Blocks. Safe to repeat.

    newest: no newer copy exists, so the next start does without the keys that this one lacks.

    Raises Misuse (keys.no_copy, keys.passphrase), NotFound (keys.copy_absent), Denied (keys.copy,
    keys.foreign), Unavailable (keys.busy: a role runs).
    """
    try:
        with open(source, "rb") as file:
            header = file.read(HEADER_BYTES)
            key = copy_key(header, passphrase)
            with folder.alone():
                copied = _compared(folder, open_copy(header, key, file))
                file.seek(HEADER_BYTES)
                folder.begin_restore()
                # Keys that were erased since may return: the next start repeats all erasures of the log.
                folder.note_erased(0)
                _put_back(folder, files, keyring, open_copy(header, key, file))
                folder.join()
                if newest:
                    folder.begin_newest()
                folder.end_restore()
    except OSError as error:
        raise NotFound(f"{source} cannot be read: {error.strerror}", code="keys.copy_absent") from None
    log.warning("keys_restored", label=copied.description.label, made_us=copied.description.made_us)
    return copied


def _held(folder: KeyFolder, files: KeyFiles, uids: list[bytes]) -> Iterator[Record]:
    for name, content in folder.files():
        yield Record(name, content)
    for uid in uids:
        file = files.open(uid)
        if file is not None:
            try:
                yield Record(f"{SESSIONS}{uid.hex()}", file.data)
            finally:
                file.close()


def _compared(folder: KeyFolder, records: Iterator[Record]) -> Copied:
    """Read a whole copy before anything is written; refuse a copy that does not belong here."""
    there = dict(folder.files()) if folder.path.is_dir() else {}
    description: KeyCopy | None = None
    sessions = 0
    for name, content in records:
        if description is None:
            if name != COPY:
                raise Denied("the copy of keys/ names no installation", code="keys.copy")
            description = read_key_copy(content)
            if there.get(INSTALLATION, description.installation) != description.installation:
                raise Denied(
                    f"the copy is of another installation than {folder.path}",
                    code="keys.foreign",
                    hint="set LUCID_DATA to the one that it belongs to",
                )
        elif name.startswith(SESSIONS):
            if content:
                sessions += 1
                if read_head(content).uid.hex() != name.removeprefix(SESSIONS):
                    raise Denied("the copy of keys/ names a session wrongly", code="keys.copy")
        elif there.get(name, content) != content and _is_whole(there[name]):
            raise Denied(
                f"{folder.path / name} differs from the file in the copy",
                code="keys.foreign",
                hint="move that folder away first, if the copy is right",
            )
    if description is None:
        raise Misuse("the copy of keys/ is empty", code="keys.no_copy")
    return Copied(description, sessions)


class Masters(NamedTuple):
    """Master keys that tell whether a key file is damaged."""

    known: frozenset[int]
    keys: Mapping[int, bytes]
    """Without master keys from an ENCRYPTION_KEY that is not set, or is another."""

    def open(self, uid: bytes, raw: bytes) -> bool:
        try:
            open_key_file(self.keys, uid, raw)
        except Denied:
            return False
        return True


def _put_back(folder: KeyFolder, files: KeyFiles, keyring: Keyring, records: Iterator[Record]) -> None:
    masters: Masters | None = None
    with ThreadPoolExecutor(WRITERS, "lucid-restore") as threads:
        while batch := list(islice(records, BATCH)):
            sessions = [record for record in batch if record.name.startswith(SESSIONS)]
            for record in batch:
                if record not in sessions and record.name != COPY:
                    folder.put_back(*record)
            if sessions:
                masters = masters or masters_of(keyring)
                list(threads.map(partial(_put_session_back, files, masters), sessions))


def masters_of(keyring: Keyring) -> Masters:
    """Every master key that can be opened now."""
    known, keys = frozenset(keyring.checks()), {}
    with suppress(LucidError):
        keys = dict(keyring.keks())
    return Masters(known, keys)


def _put_session_back(files: KeyFiles, masters: Masters, record: Record) -> None:
    uid = bytes.fromhex(record.name.removeprefix(SESSIONS))
    if not record.content:
        files.erase(uid)
        return
    there = files.put_back(uid, record.content)
    if there and there != record.content:
        files.replace(
            uid, lambda raw: record.content if _is_worse(masters, uid, raw, record.content) else None
        )


def _is_worse(masters: Masters, uid: bytes, there: bytes, copied: bytes) -> bool:
    """Whether a key file is damaged, or under an older master key than its copy."""
    try:
        version, copied_version = read_head(there).master_version, read_head(copied).master_version
    except Denied:
        return True
    is_provable = version in masters.keys or version not in masters.known
    if is_provable and not masters.open(uid, there):
        return masters.open(uid, copied)
    return version < copied_version


def _is_whole(content: bytes) -> bool:
    """Whether a file of the folder itself, no session's key file, is intact: a damaged one is replaced."""
    if len(content) in (INSTALLATION_BYTES, SALT_BYTES):
        return True
    try:
        return isinstance(json.loads(content), dict)
    except ValueError:
        return False
