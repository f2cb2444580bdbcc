"""Keeps the keys that sign for the installation: its signers, one after another, and its trust root.

    keys/signer.json               {name, seed}             the first signer, valid from the beginning of time
    keys/signer-<number:08>.json   {name, seed, from_us}    the later signers
    keys/revoked-<name>.json       {name, revoked_us}
    keys/root.json                 {name, seed}             may be moved offline: it signs only trust files

1. Every file is made once, durably, and never overwritten: of two processes that start at once, one makes
   the key and the other reads it.
2. Every signed statement has a date, and the signer of that date signs it, however late. So a seal that began
   before a rotation ends with the same bytes.
3. `begin` makes the root, then the first signer; only it makes them. A folder that lost its keys gets no new
   ones, and a missing root counts as moved offline. Only a person may order a `new_root`.
"""

import re
import secrets
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

from blake3 import blake3
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from infra.keys.json_files import JsonFiles, Members, damaged, lost, parsed
from schemas.errors import Misuse, NotFound, RefusedByState, Unreadable

SEED_BYTES = 32
OVERLAP_US = 3_600_000_000
"""A signer stays valid that long beside its successor, for processes that have not seen the new one yet."""
FIRST, ROOT = "signer.json", "root.json"
SIGNER_FILE = re.compile(r"signer(?:-(\d{8}))?\.json")


@dataclass(frozen=True, slots=True)
class Signer:
    """An Ed25519 key of the installation, its name in manifests, and its period."""

    name: str
    private: Ed25519PrivateKey
    from_us: int = 0
    until_us: int = 0
    """0: it has no successor."""
    revoked_us: int = 0
    """0: not revoked."""

    @property
    def public(self) -> bytes:
        """32 bytes, raw."""
        return self.private.public_key().public_bytes_raw()

    @property
    def fingerprint(self) -> bytes:
        """H(public key), 32 bytes."""
        return blake3(self.public).digest()

    def sign(self, message: bytes) -> bytes:
        return self.private.sign(message)


class Signers:
    """The port Signers over the folder `keys/`. Each call reads the folder anew."""

    def __init__(self, directory: Path, mirror: Path | None = None) -> None:
        self.directory = directory
        self._files = JsonFiles(directory, mirror)

    def held(self) -> list[Signer]:
        """Return every signer, oldest first; empty: none was made yet."""
        made = [_signer(self._files.read(file), self.directory / file) for _, file in self._numbered()]
        ends = {one.name: later.from_us + OVERLAP_US for one, later in pairwise(made)}
        revoked = {}
        for file in self._files.names("revoked-"):
            path, members = self.directory / file, self._files.read(file)
            revoked[_name(members, path)] = _time_us(members, "revoked_us", path)
        return [
            replace(one, until_us=ends.get(one.name, 0), revoked_us=revoked.get(one.name, 0)) for one in made
        ]

    def begin(self) -> None:
        """Make the root, then the first signer: a signer without a root means a root moved offline."""
        if not self.held():
            self._make(ROOT, "root")
            self._make(FIRST, "signer")

    def at(self, at_us: int) -> Signer:
        """Return the signer for this date: the newest of then; if that one is revoked, the newest of all."""
        held = self._some()
        chosen = [one for one in held if one.from_us <= at_us or one is held[0]][-1]
        return held[-1] if chosen.revoked_us else chosen

    def of(self, fingerprint: bytes) -> Signer | None:
        """Return the signer with this fingerprint."""
        return next((one for one in self.held() if one.fingerprint == fingerprint), None)

    def public_keys(self) -> list[bytes]:
        """Return every signer's public key, revoked or not: an ending stays valid after a revocation."""
        return [one.public for one in self.held()]

    def rotate(self, now_us: int) -> Signer:
        """Make a new signer for dates from now on. Of two calls at once one makes it."""
        held = self._some()
        number = self._numbered()[-1][0] + 1
        self._make(f"signer-{number:08}.json", "signer", from_us=max(now_us, held[-1].from_us + 1))
        return self.held()[-1]

    def revoke(self, name: str, revoked_us: int) -> Signer:
        """Revoke every signature of this signer, old ones too. Durable on return, and safe to repeat.

        Raises NotFound (keys.signer), Misuse (keys.in_use), RefusedByState (keys.revoked: at another time).
        """
        held = self.held()
        if name not in [one.name for one in held]:
            raise NotFound(f"no signer is called {name}", code="keys.signer", hint="lucid keys signer list")
        if name == held[-1].name:
            raise Misuse(
                f"{name} is the current signer; rotate before you revoke it",
                code="keys.in_use",
                hint="lucid keys signer rotate",
            )
        self._files.make(f"revoked-{name}.json", {"name": name, "revoked_us": revoked_us})
        revoked = next(one for one in self.held() if one.name == name)
        if revoked.revoked_us != revoked_us:
            raise RefusedByState(f"{name} is revoked already, at another time", code="keys.revoked")
        return revoked

    def root(self, elsewhere: Path | None = None) -> Signer:
        """Return the key that signs trust files. elsewhere: its file, if it is kept offline.

        Raises NotFound (keys.root), Unreadable (keys.unreadable), Misuse (keys.no_root: another key).
        """
        path = elsewhere or self.directory / ROOT
        if not path.exists():
            raise NotFound(
                f"{path} is missing: the trust root, which signs trust files",
                code="keys.root",
                hint="give its offline copy: --root-key FILE; if it is lost for good: --new-root",
            )
        try:
            root = _signer(parsed(path.read_bytes(), path), path)
        except OSError as error:
            raise Unreadable(f"{path} cannot be read: {error.strerror}", code="keys.unreadable") from None
        if not root.name.startswith("root-"):  # with a signer's key a signer could list itself
            raise Misuse(
                f"{path} is not a root key", code="keys.no_root", hint="give the copy of keys/root.json"
            )
        return root

    def new_root(self) -> Signer:
        """Make a new root after the old one was lost; every verifier must learn its fingerprint.

        Raises RefusedByState (keys.root_there): there is one.
        """
        if self._files.blobs.read(ROOT) is not None:
            raise RefusedByState(
                f"{self.directory / ROOT} exists; no second root is made", code="keys.root_there"
            )
        self._make(ROOT, "root")
        return self.root()

    def _some(self) -> list[Signer]:
        held = self.held()
        if not held:
            raise lost(self.directory, "signer")
        return held

    def _numbered(self) -> list[tuple[int, str]]:
        """Return the numbers and files of the signers, in order."""
        found = [(SIGNER_FILE.fullmatch(name), name) for name in self._files.names("signer")]
        return sorted((int(match[1] or 1), name) for match, name in found if match)

    def _make(self, file: str, role: str, **more: int) -> None:
        """Make a key, unless another process made it meanwhile."""
        seed = secrets.token_bytes(SEED_BYTES)
        public = Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()
        self._files.make(file, {"name": f"{role}-{blake3(public).hexdigest(4)}", "seed": seed.hex(), **more})


def _signer(members: Members, path: Path) -> Signer:
    try:
        private = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(members["seed"]))
    except (ValueError, LookupError, TypeError):
        raise damaged(path) from None
    return Signer(_name(members, path), private, _time_us({"from_us": 0, **members}, "from_us", path))


def _name(members: Members, path: Path) -> str:
    name = members.get("name")
    if not isinstance(name, str):
        raise damaged(path)
    return name


def _time_us(members: Members, member: str, path: Path) -> int:
    value = members.get(member)
    if not isinstance(value, int):
        raise damaged(path)
    return value
