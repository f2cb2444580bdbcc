"""The ports of the keys: master keys, signers and key files of the installation, identity of a host.

Calls block: use threads. Threads and processes may call at once, except on a HostIdentity.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Literal, Protocol

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from schemas.ports.access import Credential


class SigningKey(Protocol):
    """A private Ed25519 key, in memory, in a file or in a device."""

    def sign(self, message: bytes, /) -> bytes:
        """Return the signature, 64 bytes. A second call returns the same bytes."""


class Signer(SigningKey, Protocol):
    """A key of the installation, with its name in manifests."""

    @property
    def name(self) -> str: ...

    @property
    def public(self) -> bytes:
        """32 bytes, raw."""

    @property
    def fingerprint(self) -> bytes:
        """H(public), 32 bytes."""


class MasterKeys(Protocol):
    """The versions of the master key, 32 bytes each. Calls may block on the disk or on a key derivation.

    Raises Denied (keys.master): ENCRYPTION_KEY differs from the one that made a version.
    """

    def keks(self) -> Mapping[int, bytes]:
        """Return the key of every version that is held now."""

    def newest(self) -> tuple[int, bytes]:
        """Return the version that wraps from now on, and its key.

        Raises Unavailable (keys.lost): there is none. Denied (keys.kek): it needs ENCRYPTION_KEY, which is
        not set.
        """


class Keyring(MasterKeys, Protocol):
    """The master key and its rotation."""

    def begin(self) -> tuple[int, bytes]:
        """Make the first version unless one exists. Durable. Only for a new installation."""

    def checks(self) -> Mapping[int, bytes]:
        """Return 16 bytes derived from each version; equal keys, equal checks. Needs no ENCRYPTION_KEY."""

    def add_version(self, above: int = 0) -> int:
        """Make the next version, above `above`. Durable. Two calls at once make one; a later call another.

        Key files stay under the version that wrapped them.
        """


Erasure = Literal["overwritten", "unproven"]
"""Erased bytes are proven to be overwritten on the disk, or they are not proven to be."""


class OpenKeyFile(Protocol):
    """An open key file. One thread may use it."""

    @property
    def data(self) -> bytes:
        """Its content when it was opened; empty: the key is erased for ever."""

    def stands(self) -> bool:
        """Whether it is still the session's key file: neither erased nor replaced. Does not block."""

    def close(self) -> None:
        """Close it. A second call does nothing."""


class KeyFiles(Protocol):
    """One small file per session whose bytes can be erased. Calls block: use threads.

    Any number of threads and processes may mix calls on one place. A change is durable on return, and every
    call may be repeated after a crash. All raise Unavailable (keys.io, keys.read_only, keys.access,
    keys.read_back) and Misuse (keys.network).
    """

    def make(self, uid: bytes, data: bytes) -> bytes:
        """Write a key file unless one exists. Returns the content that is there now; empty: it is erased.

        A second call returns the content of the first. Raises NoSpace.
        """

    def put_back(self, uid: bytes, data: bytes) -> bytes:
        """As `make`, for a key that was here before: old bytes of it may be anywhere on the disk."""

    def open(self, uid: bytes) -> OpenKeyFile | None:
        """Open the current file; None: none was made yet. The caller closes it."""

    def open_now(self, uid: bytes) -> OpenKeyFile | None:
        """As `open`, for a file that this process has opened before, and without waiting for locks or disks.

        None: it would wait, or the file is missing; `open` tells which.
        """

    def replace(self, uid: bytes, make: Callable[[bytes], bytes | None]) -> Erasure | None:
        """Replace the content by the result of `make(content)`, and erase the old bytes.

        None: `make` returned None, or there is no content. Raises NoSpace, and the errors of `make`.
        """

    def erase(self, uid: bytes, *, was_made: bool = True) -> Erasure:
        """Overwrite the file and leave an empty one, so that no key can be made again.

        The outcome covers all bytes that this file and earlier ones ever held here. was_made: a key was made,
        or may have been; without a file its bytes may then be anywhere. A second call repeats the outcome.
        """

    def mark_proven(self, uid: bytes, data: bytes) -> None:
        """Note that no other copy of the bytes is left, if they equal `data`. A file must exist."""

    def mark_unproven(self, uid: bytes) -> None:
        """Note that the bytes of the file may also be elsewhere. A file must exist."""

    def uids(self) -> Iterator[bytes]:
        """Yield every session with a file, erased ones included, in order of uid."""

    def states(self) -> Iterator[tuple[bytes, bool]]:
        """Yield the same uids, each with whether it is erased. Reads no file."""

    def sweep(self) -> int:
        """Erase files that a crash left half made, half replaced, or in only one folder of a mirror.

        Returns how many files. Safe at any time; a second call does nothing more.
        """

    def unproven(self) -> str:
        """Return why erasure is not proven in this place; empty: it is."""


class IndexKey(Protocol):
    """The key under which the read models are searched. It outlives every rotation of the master key."""

    def read(self) -> bytes:
        """Return its 32 bytes, made durably at the first call. Raises Unavailable (keys.damaged)."""


class DatedSigner(Signer, Protocol):
    """A signer and its period: from `from_us` to before `until_us` (0: open end), µs."""

    @property
    def from_us(self) -> int: ...

    @property
    def until_us(self) -> int: ...

    @property
    def revoked_us(self) -> int:
        """0: not revoked. Otherwise none of its signatures count, of any date."""


class Signers(Protocol):
    """The signers of manifests, ends and tombstones, and the root that signs the trust file.

    A change is durable on return. All raise Unavailable (keys.damaged).
    """

    def begin(self) -> None:
        """Make root and first signer unless they exist. Only for a new installation."""

    def held(self) -> Sequence[DatedSigner]:
        """Return every signer so far, oldest first; empty: none was made yet."""

    def at(self, at_us: int) -> DatedSigner:
        """Return the signer of that date. If it is revoked: the newest, whose period may begin later.

        Raises Unavailable (keys.lost): there is none.
        """

    def of(self, fingerprint: bytes) -> DatedSigner | None:
        """Return the signer with this fingerprint, whether it still counts or not."""

    def public_keys(self) -> Sequence[bytes]:
        """Return every signer's public key, revoked or not: a recording that one ended stays ended."""

    def rotate(self, now_us: int) -> DatedSigner:
        """Make a new signer for dates from `now_us` on. Two calls at once make one; a later call another."""

    def revoke(self, name: str, revoked_us: int) -> DatedSigner:
        """Revoke a signer: none of its signatures count any more. A second call does nothing.

        Raises NotFound (keys.signer), Misuse (keys.in_use), RefusedByState (keys.revoked: at another time).
        """

    def root(self, elsewhere: Path | None = None) -> Signer:
        """Return the key that signs trust files. elsewhere: its file, if it is kept offline.

        Raises NotFound (keys.root): there is no such file.
        """

    def new_root(self) -> Signer:
        """Make a root in place of a lost one. Raises RefusedByState (keys.root_there): there is one."""


class HostIdentity(AbstractContextManager["HostIdentity"], Protocol):
    """The key and the counters of one host: never lost, never used twice.

    The context holds a lock: one process, one thread at a time. Raises Unavailable (host.damaged).
    """

    @property
    def key(self) -> Ed25519PrivateKey:
        """The evidence key."""

    @property
    def public(self) -> bytes:
        """The public half of the evidence key, 32 bytes."""

    @property
    def credential(self) -> Credential:
        """Makes tokens that this host's key signs; usable without the lock, after the context has ended."""

    @property
    def prev_genesis(self) -> bytes:
        """Genesis of track 0 of the last session that could hold fragments; zero before the first."""

    @property
    def pending(self) -> tuple[tuple[str, int], ...]:
        """The sessions that have a counter and no genesis yet, each with its counter, in this order."""

    def begin(self, session: str) -> int:
        """Return the counter of a session. Durable; a second call returns the same until `settle`."""

    def begin_all(self, sessions: Sequence[str], genesis: bytes) -> int:
        """Return the first of as many counters as there are sessions. Durable; each call takes new ones.

        genesis: of the last session before these, noted by the same write.
        """

    def settle(self, session: str, genesis: bytes) -> None:
        """Note the genesis of the last pending session's track 0. Durable: its first fragment may be sent."""


Identities = Callable[[str], HostIdentity]
"""Opens a host by name. Raises Unavailable (host.locked): another process has it open."""
