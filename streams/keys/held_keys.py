"""Holds the keys of sessions in use, each with its open key file, which tells whether the key still stands.

1. The users of one session share its keys.
2. Unused keys stay for LINGER_S, as the stages of a chunk follow each other. `stands` is asked before every
   use: an erased key is handed to nobody.
3. Many open files are no reason to keep more: beyond HELD_MOST, unused keys go at once.
"""

import asyncio
import threading

from handlers.crypto.key_file import read_head
from handlers.crypto.keys import SessionKeys
from schemas.errors import RefusedByState
from schemas.ports import KeyFiles, OpenKeyFile

LINGER_S = 1.0
"""Unused keys go after this time, at the latest after twice as long."""
HELD_MOST = 256
"""Each is an open file; a process may often have 1,024."""


class HeldKeys:
    """The keys of one session in use, and their open key file."""

    def __init__(self, files: KeyFiles, uid: bytes, file: OpenKeyFile, keys: SessionKeys) -> None:
        self.keys = keys
        self.users = 0
        self.is_idle = False
        """It was unused when keys were last let go."""
        self.uid = uid
        self._files, self._file = files, file
        self._changing = threading.Lock()

    def stands(self) -> bool:
        """Whether the key file is as it was read. Does not block."""
        with self._changing:
            return self._file.stands()

    def check(self) -> None:
        """Return if the session still has this key. Blocks only if its file was replaced or erased.

        Raises RefusedByState (keys.shredded).
        """
        with self._changing:
            if self._file.stands():
                return
            again = self._files.open(self.uid)
            if again is None or not again.data or read_head(again.data).dek_id != self.keys.dek_id:
                if again is not None:
                    again.close()
                raise shredded(self.uid)
            self._file.close()
            self._file = again

    def close(self) -> None:
        with self._changing:
            self._file.close()


class KeysInUse:
    """The keys in use and those that linger, by uid. Used from one event loop."""

    def __init__(self) -> None:
        self._held: dict[bytes, HeldKeys] = {}
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._held)

    def get(self, uid: bytes) -> HeldKeys | None:
        return self._held.get(uid)

    def add(self, held: HeldKeys) -> None:
        """Share these keys from now on, in place of others of the same session."""
        self.let_go(held.uid)
        self._held[held.uid] = held

    def release(self, held: HeldKeys) -> None:
        """End one use."""
        held.users -= 1
        held.is_idle = False
        if held.users:
            return
        if self._held.get(held.uid) is not held:
            held.close()
        elif len(self._held) > HELD_MOST:
            self.let_go(held.uid)
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(LINGER_S, self._let_idle_go)

    def let_go(self, uid: bytes) -> None:
        """Forget the keys of a session, unless somebody uses them."""
        held = self._held.get(uid)
        if held is not None and not held.users:
            del self._held[uid]
            held.close()

    def _let_idle_go(self) -> None:
        """Forget the keys that nobody has used for LINGER_S."""
        self._timer = None
        unused = [held for held in self._held.values() if not held.users]
        for held in unused:
            if held.is_idle:
                self.let_go(held.uid)
            held.is_idle = True
        if unused:
            self._timer = asyncio.get_running_loop().call_later(LINGER_S, self._let_idle_go)


def shredded(uid: bytes) -> RefusedByState:
    return RefusedByState(f"the key of session {uid.hex()} is shredded", code="keys.shredded")
