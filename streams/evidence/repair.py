"""Compares one stored file with its sealed entry, and replaces a damaged one by the file that was made again.

1. The right bytes are durable, in a file without a name, before the damaged file is quarantined: a full disk
   leaves it where it is. After a kill between the two steps the name is free, and the next try fills it.
   After a kill anywhere else nothing has changed.
2. The file is read back before anybody hears that it is restored.
3. A chunk of a session that is destroyed meanwhile is removed again.
4. A file that cannot be read counts as damaged. If the whole disk fails, the right bytes cannot be written
   either, and the file stays where it is.
"""

from dataclasses import dataclass
from functools import partial

from handlers.evidence.replay import Judgement, judge
from schemas.errors import RefusedByState, Rejected, Unavailable
from schemas.format import file_names
from schemas.format.digest import Buffer
from schemas.format.index import Entry
from schemas.ports import Blobs
from streams.keys.held_keys import HeldKeys
from streams.scheduling.threads import Threads


@dataclass(frozen=True, slots=True)
class Repair:
    """Repairs the files of one session. host: takes its turn at the threads."""

    blobs: Blobs
    threads: Threads
    keys: HeldKeys
    uid: bytes
    host: str

    async def compare(self, entry: Entry, made: Buffer | None) -> tuple[Judgement, str]:
        """Judge one file, and repair it if it can be. made None: its source is gone.

        Returns the judgement, and the new name of the damaged file; empty: there was none.
        Raises Rejected (replay.store), RefusedByState (keys.shredded), Unavailable, NoSpace.
        """
        return await self.threads.run(self.host, partial(self._mend, entry, made))

    def _mend(self, entry: Entry, made: Buffer | None) -> tuple[Judgement, str]:
        """In a thread."""
        name = file_names.stored_chunk(self.uid, entry.index)
        found = self._found(name)
        outcome = judge(entry, self.keys.keys.dek, made, found)
        quarantined = None
        if made is not None and outcome is Judgement.RESTORED:
            quarantined = self._replaced(name, made, found is not None)
            self._refuse_destroyed(name)
            again = self.blobs.read(name)
            if again is None or judge(entry, self.keys.keys.dek, made, again) is not Judgement.SAME:
                raise Rejected(f"chunk {name} cannot be restored: the store gives back other bytes",
                               code="replay.store", place=name)  # fmt: skip
        return outcome, quarantined or ""

    def _replaced(self, name: str, made: Buffer, is_taken: bool) -> str | None:
        """Give the bytes their name; return the new name of the file that had it."""
        file = self.blobs.new()
        try:
            file.write(made)
            file.settle()
            quarantined = self.blobs.quarantine(name) if is_taken else None
            file.keep(name)
        finally:
            file.close()
        return quarantined

    def _found(self, name: str) -> bytes | None:
        """The stored file; empty bytes: it cannot be read, or is no plain file. Both count as damaged."""
        try:
            return self.blobs.read(name)
        except Unavailable:
            return b""

    def _refuse_destroyed(self, name: str) -> None:
        """Remove the chunk again if its session was destroyed meanwhile."""
        try:
            self.keys.check()
        except RefusedByState:
            self.blobs.remove(name)
            raise
