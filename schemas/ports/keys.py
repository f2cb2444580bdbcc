"""Owns what services ask of whoever keeps keys: the installation's own, and a host's."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Literal, Protocol

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey


class SigningKey(Protocol):
    """A private Ed25519 key, wherever it is kept."""

    def sign(self, message: bytes, /) -> bytes:
        """64 bytes."""


class Signer(SigningKey, Protocol):
    """A key of the installation, and the name that manifests give it."""

    @property
    def name(self) -> str: ...

    @property
    def public(self) -> bytes:
        """32 bytes, raw."""

    @property
    def fingerprint(self) -> bytes:
        """H(public), 32 bytes."""


class MasterKeys(Protocol):
    """Versions of the master key, 32 bytes each. Both calls may block on disk or on a key derivation.

    Raises Denied (keys.master): ENCRYPTION_KEY is not the one that a version was made with.
    """

    def keks(self) -> Mapping[int, bytes]:
        """Every version that is held now."""

    def newest(self) -> tuple[int, bytes]:
        """The version that wraps from now on, and its key.

        Raises Unavailable (keys.lost): there is none. Denied (keys.kek): it comes from ENCRYPTION_KEY,
        which is not set.
        """


class Keyring(MasterKeys, Protocol):
    """The master key, and how it is made anew."""

    def begin(self) -> tuple[int, bytes]:
        """Make the first version unless there is one. For an installation that begins, nobody else."""

    def checks(self) -> Mapping[int, bytes]:
        """16 bytes for each version, derived from it: equal keys have equal ones. Needs no ENCRYPTION_KEY."""

    def add_version(self, above: int = 0) -> int:
        """Make the next version of the master key, and one above this; what older ones wrap stays so."""


Erasure = Literal["overwritten", "unproven"]
"""What is known of erased bytes: their blocks hold other bytes now, or that cannot be shown."""


class OpenKeyFile(Protocol):
    """A key file that was read."""

    @property
    def data(self) -> bytes:
        """What it held; empty: it is erased for ever."""

    def stands(self) -> bool:
        """Whether it is still the session's key file: not erased, not replaced. Does not block."""

    def close(self) -> None:
        """Let it go. A second call does nothing."""


class KeyFiles(Protocol):
    """One small file a session, whose bytes can be erased. Calls block: use threads.

    Any number of threads and processes may share one place, in any mixture of calls. All raise Unavailable
    (keys.io, keys.read_only, keys.access, keys.read_back) and Misuse (keys.network). Every call may be
    repeated after a crash.
    """

    def make(self, uid: bytes, data: bytes) -> bytes:
        """What durably stands there now: `data` if nothing did; empty: it is erased. Raises NoSpace."""

    def put_back(self, uid: bytes, data: bytes) -> bytes:
        """As `make`, of a key that was here before: its bytes may be left anywhere."""

    def open(self, uid: bytes) -> OpenKeyFile | None:
        """The file as it is now; None: none was made yet. The caller closes it."""

    def replace(self, uid: bytes, make: Callable[[bytes], bytes | None]) -> Erasure | None:
        """Put what `make` returns for the file's content in its place, and erase the old bytes.

        None: `make` returned None, or there is nothing to replace. Raises NoSpace, and what `make` raises.
        """

    def erase(self, uid: bytes, *, was_made: bool = True) -> Erasure:
        """Overwrite the file and leave an empty one, so that none can be made again.

        The outcome counts for all bytes that the file and those before it ever held here. was_made: a key was
        made, or may have been; where there is no file then, its bytes are anywhere.
        """

    def vouch(self, uid: bytes, data: bytes) -> None:
        """Note that the file's bytes are nowhere else any more, if they are `data`. There must be a file."""

    def doubt(self, uid: bytes) -> None:
        """Note that the file's bytes may be elsewhere, too. Durable on return. There must be a file."""

    def uids(self) -> Iterator[bytes]:
        """Every session that has a file, erased ones included, in their order."""

    def states(self) -> Iterator[tuple[bytes, bool]]:
        """The same, and whether it is erased. Reads no file."""

    def sweep(self) -> int:
        """Erase what crashes left half made or half replaced, and in a mirror what they left in one folder.

        How many files. Safe at any time.
        """

    def unproven(self) -> str:
        """Why erasing is not proven in this place; empty: it is."""


class DatedSigner(Signer, Protocol):
    """A signer, and when it counts: from `from_us` to before `until_us` (0: still)."""

    @property
    def from_us(self) -> int: ...

    @property
    def until_us(self) -> int: ...

    @property
    def revoked_us(self) -> int:
        """0: not revoked. Otherwise it counts for nothing, whenever it signed."""


class Signers(Protocol):
    """Who signs manifests, ends and tombstones, and the root that says whose signatures count."""

    def begin(self) -> None:
        """Make root and first signer unless there is one. For an installation that begins, nobody else."""

    def held(self) -> Sequence[DatedSigner]:
        """Every signer that there has been, oldest first; empty: none was made yet."""

    def at(self, at_us: int) -> DatedSigner:
        """Who signs what bears this date. If that one was revoked: the newest, which may count later only.

        Raises Unavailable (keys.lost): there is none.
        """

    def of(self, fingerprint: bytes) -> DatedSigner | None:
        """The signer with this fingerprint, whether it still counts or not."""

    def publics(self) -> Sequence[bytes]:
        """Every signer's public key, revoked or not: what one has ended stays ended when it is read again."""

    def rotate(self, now_us: int) -> DatedSigner:
        """Make a new signer, who signs what is dated from now on."""

    def revoke(self, name: str, revoked_us: int) -> DatedSigner:
        """Let nothing that this signer ever signed count. Safe to repeat.

        Raises NotFound (keys.signer), Misuse (keys.in_use), RefusedByState (keys.revoked: at another time).
        """

    def root(self, elsewhere: Path | None = None) -> Signer:
        """The key that signs trust files; elsewhere: its file, where it is kept offline.

        Raises NotFound (keys.root): it is not there.
        """

    def new_root(self) -> Signer:
        """Make a root in place of one that is lost. Raises RefusedByState (keys.root_there): there is one."""


class KeyFolder(Protocol):
    """The folder `keys/`, and the name of the installation in it. Calls block."""

    @property
    def path(self) -> Path: ...

    def require_usable(self) -> None:
        """Return if nothing but the log can refuse the folder.

        Raises Denied (keys.moving, keys.moved, keys.mirror_unset; of a mirror: keys.mirror, keys.missing,
        keys.foreign).
        """

    def reconcile(self) -> None:
        """Bring folder and mirror to one state. Safe at any time. Raises as `require_usable`, and Denied
        (keys.mirror_differs).
        """

    def require_writable(self) -> None:
        """Return if keys can be made and erased here. Raises Unavailable (keys.read_only, keys.access)."""

    def use(self) -> None:
        """Keep the folder from being moved until `let_go`, or the end of this object. Safe to repeat.

        Raises Unavailable (as `require_writable`; keys.busy), Denied (keys.moving, keys.moved).
        """

    def let_go(self) -> None:
        """It may be moved. Safe to repeat."""

    def installation(self) -> bytes:
        """16 bytes; empty: it names none. Raises Unavailable (keys.damaged)."""

    def begin(self) -> None:
        """Give the folder a name unless it has one. Durable on return."""

    def joined(self) -> bool:
        """Whether a log has named this folder."""

    def join(self) -> None:
        """Note for good that a log has named this folder. Safe to repeat."""

    def erased_up_to(self) -> int:
        """The place in the log up to which every erasure is done here; 0: none may be."""

    def note_erased(self, up_to: int) -> None:
        """Every erasure up to this place is done here. Durable on return."""

    def unproven(self) -> str:
        """Why erasing is not proven where the folder lies; empty: it is. Makes nothing."""

    def restoring(self) -> bool:
        """Whether a copy is being put back, or was when a crash came."""

    def begin_restore(self) -> None:
        """From now on nothing may use the folder. Durable on return. Raises Denied (keys.moving)."""

    def end_restore(self) -> None:
        """It may be used again. Durable on return."""

    def is_newest(self) -> bool:
        """Whether a person said that there is no newer copy, and no start has come since."""

    def begin_newest(self) -> None:
        """The next start may do without keys that the log knows. Durable on return."""

    def end_newest(self) -> None:
        """A start has done without them. Durable on return."""

    def is_mirrored(self) -> bool:
        """Whether there is a second folder, so that this one is not used without it."""

    def note_mirrored(self) -> None:
        """There is a second folder. Durable on return."""

    def forget_mirror(self) -> None:
        """There is none any more. Durable on return."""

    def files(self) -> Iterator[tuple[str, bytes]]:
        """Names and contents of all that a copy holds, the key files of sessions apart."""

    def put_back(self, name: str, content: bytes) -> None:
        """Put one of `files` there. Bytes of another content that stood there are overwritten."""


class HostIdentity(AbstractContextManager["HostIdentity"], Protocol):
    """What one host must never lose or use twice. Opening it locks it, leaving it gives the lock back."""

    @property
    def key(self) -> Ed25519PrivateKey:
        """The evidence key."""

    @property
    def public(self) -> bytes:
        """Its public half, 32 bytes."""

    @property
    def prev_genesis(self) -> bytes:
        """Track-0 genesis of the last session that could hold fragments; zero before the first."""

    def begin(self, session: str) -> int:
        """The counter of a session, durable; the same again until it is settled."""

    def settle(self, session: str, genesis: bytes) -> None:
        """Remember the session's track-0 genesis; its first fragment may be sent now."""


Identities = Callable[[str], HostIdentity]
"""Opens a host by name. Raises Unavailable (host.locked): another process has it open."""
