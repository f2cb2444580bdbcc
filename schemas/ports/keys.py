"""Owns what services ask of whoever keeps keys: the installation's own, and a host's."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Protocol

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
        """The version that wraps from now on, and its key; the first is made when there is none.

        Raises Denied (keys.kek): it comes from ENCRYPTION_KEY, which is not set.
        """


class Keyring(MasterKeys, Protocol):
    """The installation's own secrets. Each is made once, when it is first wanted."""

    def add_version(self) -> int:
        """Make the next version of the master key; what older ones wrap stays so."""

    def signer(self, *, make: bool = True) -> Signer:
        """Signs manifests, ends and tombstones. Raises NotFound (keys.absent): it is not to be made now."""

    def root(self) -> Signer:
        """Signs the trust file."""


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
