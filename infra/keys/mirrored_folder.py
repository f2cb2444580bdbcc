"""Runs the folder `keys/` with its mirror: neither is used before both are there and agree.

    mirror/mirrored, keys/mirrored    one random name for the pair: none of the two is used alone, or with
                                      another folder

1. A start never fills a folder that is missing, empty or another installation's: its disk may not be mounted.
   `lucid keys mirror` fills it, on a person's order.
2. `reconcile` copies a file that a crash left in one folder into the other. It leaves the trust root alone:
   that may have been moved offline.
3. Only `lucid keys mirror` pairs other folders. Otherwise a key could stay on a disk that was the mirror
   earlier, while its erasure in the two folders at hand is called proven.
4. The mirror gets each file first (infra.keys.mirrored_files). A note that blocks use (restoring) counts if
   either folder has it; of two numbers (erased) the lower counts.
"""

import secrets
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from infra.keys.folder import INSTALLATION, NAME_BYTES, KeyFolder
from infra.keys.mirrored_files import differs
from infra.keys.signers import ROOT
from schemas.errors import Denied, Misuse, Unavailable


class MirroredKeyFolder:
    """The port KeyFolder over two folders."""

    def __init__(self, first: Path, mirror: Path) -> None:
        self._first, self._mirror = (
            KeyFolder(first, is_alone=False),
            KeyFolder(mirror, is_alone=False, setting="LUCID_KEYS_MIRROR"),
        )
        self.path = first

    @property
    def _both(self) -> tuple[KeyFolder, KeyFolder]:
        return self._mirror, self._first

    def require_usable(self) -> None:
        one, two = self.path.resolve(), self._mirror.path.resolve()
        if one == two or one in two.parents or two in one.parents:
            raise Misuse(
                f"LUCID_KEYS_MIRROR is {two} and keys/ is {one}: one contains the other",
                code="config.keys_mirror",
                hint="set LUCID_KEYS_MIRROR to a folder on another disk",
            )
        for folder in self._both:
            folder.require_usable()
        # The reverse of the order in which a first start writes: so a first start of another process never
        # looks like a lost folder.
        joined = self._mirror.joined()
        first = self._first.installation()
        mirrored = self._mirror.installation()
        if first and not mirrored:
            raise Denied(
                f"{self._mirror.path}, the mirror of {self.path}, is missing or empty",
                code="keys.mirror",
                hint="mount its disk; to fill a new one, stop everything: lucid keys mirror",
            )
        if mirrored and not first and joined:
            raise Denied(
                f"{self.path} is missing or empty; its mirror {self._mirror.path} exists",
                code="keys.missing",
                hint="mount its disk; to fill a new one from the mirror: lucid keys mirror",
            )
        if first and first != mirrored:
            raise self._foreign()
        if first and not self._is_pair():
            raise self._other()

    def reconcile(self) -> None:
        self.require_usable()
        if self.restoring() or not self._first.installation():
            return  # a restore, or the first start, is writing into both
        first, mirrored = dict(self._first.files()), dict(self._mirror.files())
        for name in sorted(first.keys() | mirrored.keys()):
            if name in first and name in mirrored:
                if first[name] != mirrored[name]:
                    raise differs(name, self.path, self._mirror.path)
            elif name != ROOT:
                folder, content = (self._mirror, first) if name in first else (self._first, mirrored)
                folder.put_back(name, content[name])
        if self.joined():
            self.join()

    def require_writable(self) -> None:
        for folder in self._both:
            folder.require_writable()

    def use(self) -> None:
        for folder in self._both:
            folder.use()
        self.require_usable()  # the mirror may have been given up between the last look and the lock

    @contextmanager
    def alone(self) -> Iterator[None]:
        with ExitStack() as held:
            for folder in self._both:
                held.enter_context(folder.alone())
            yield

    def release(self) -> None:
        for folder in self._both:
            folder.release()

    def installation(self) -> bytes:
        return self._first.installation()

    def begin(self) -> None:
        self._first.note_mirrored(self._mirror.begin_pair())
        self._mirror.begin()
        # A crash here leaves a name in the mirror that no log knows; the next start uses it.
        self._first.put_back(INSTALLATION, self._mirror.installation())

    def joined(self) -> bool:
        return any(folder.joined() for folder in self._both)

    def join(self) -> None:
        for folder in self._both:
            folder.join()

    def erased_up_to(self) -> int:
        return min(folder.erased_up_to() for folder in self._both)

    def note_erased(self, up_to: int) -> None:
        for folder in self._both:
            folder.note_erased(up_to)

    def unproven(self) -> str:
        return self._first.unproven() or self._mirror.unproven()

    def restoring(self) -> bool:
        return any(folder.restoring() for folder in self._both)

    def begin_restore(self) -> None:
        with suppress(Unavailable):  # the copy replaces a damaged name
            if self._first.installation() and not self.restoring():
                self.require_usable()  # the disk of a folder may not be mounted
        for folder in self._both:
            folder.begin_restore()
        if not all(folder.is_mirrored() for folder in self._both):
            name = secrets.token_hex(NAME_BYTES)
            # A lost folder last: after a crash before that the next call names the pair anew.
            for folder in sorted(self._both, key=KeyFolder.is_mirrored, reverse=True):
                folder.note_mirrored(name)
        elif not self._is_pair():
            raise self._other()

    def end_restore(self) -> None:
        for folder in self._both:
            folder.end_restore()

    def is_newest(self) -> bool:
        return any(folder.is_newest() for folder in self._both)

    def begin_newest(self) -> None:
        for folder in self._both:
            folder.begin_newest()

    def end_newest(self) -> None:
        for folder in self._both:
            folder.end_newest()

    def is_mirrored(self) -> bool:
        return True

    def pair(self) -> str:
        return self._first.pair()

    def note_mirrored(self, name: str) -> None:
        for folder in self._both:
            folder.note_mirrored(name)

    def forget_mirror(self) -> None:
        for folder in self._both:
            folder.forget_mirror()

    def files(self) -> Iterator[tuple[str, bytes]]:
        return self._first.files()

    def put_back(self, name: str, content: bytes) -> None:
        if name == INSTALLATION and self._mirror.installation() not in (b"", content):
            raise self._foreign()
        for folder in self._both:
            folder.put_back(name, content)

    def _is_pair(self) -> bool:
        name = self._mirror.pair()
        return name != "" and name == self._first.pair()

    def _other(self) -> Denied:
        return Denied(
            f"{self._mirror.path} is not the mirror that {self.path} had last",
            code="keys.mirror_other",
            hint="mount the disks that were used together; to go on with these: lucid keys mirror",
        )

    def _foreign(self) -> Denied:
        return Denied(
            f"{self._mirror.path} is the mirror of another installation than {self.path}",
            code="keys.foreign",
            hint="set LUCID_KEYS_MIRROR to the right folder",
        )
