"""Owns the keys that sign for the installation: its signers, one after the other, and its trust root.

    keys/signer.json               {name, seed}             the first signer, from the beginning of time
    keys/signer-<number:08>.json   {name, seed, from_us}    those that came after it
    keys/revoked-<name>.json       {name, revoked_us}
    keys/root.json                 {name, seed}             may be taken away: it signs trust files alone

1. Every file is made once, durably, and never overwritten: of two processes that start at once, one makes
   the key and the other reads it.
2. Whatever is signed bears a date, and the signer of that date signs it, however late: a seal that was begun
   before a rotation ends as it would have.
3. The root is made before the first signer, and never again unasked: a root that is not there was taken away.
   Both are made by `begin` alone: a folder that lost its keys gets no others.
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
"""How long a signer counts beside the next one: whoever has not seen that one yet signs as before."""
FIRST, ROOT = "signer.json", "root.json"
SIGNER_FILE = re.compile(r"signer(?:-(\d{8}))?\.json")


@dataclass(frozen=True, slots=True)
class Signer:
    """An Ed25519 key of the installation, the name that manifests give it, and when it counts."""

    name: str
    private: Ed25519PrivateKey
    from_us: int = 0
    until_us: int = 0
    """0: no other has come after it."""
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
    """The signing keys in the folder `keys/` of a data directory. Each call reads it: a new one shows."""

    def __init__(self, directory: Path, mirror: Path | None = None) -> None:
        self.directory = directory
        self._files = JsonFiles(directory, mirror)

    def held(self) -> list[Signer]:
        """Every signer that there has been, oldest first; empty: none was made yet."""
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
        """Make root and first signer. In this order: a signer without a root means that it was taken away."""
        if not self.held():
            self._make(ROOT, "root")
            self._make(FIRST, "signer")

    def at(self, at_us: int) -> Signer:
        """Who signs what bears this date: the newest by then or, was that one revoked, the newest of all."""
        held = self._some()
        chosen = [one for one in held if one.from_us <= at_us or one is held[0]][-1]
        return held[-1] if chosen.revoked_us else chosen

    def of(self, fingerprint: bytes) -> Signer | None:
        """The signer with this fingerprint."""
        return next((one for one in self.held() if one.fingerprint == fingerprint), None)

    def publics(self) -> list[bytes]:
        """Every signer's public key, revoked or not: what one has ended stays ended when it is read again."""
        return [one.public for one in self.held()]

    def rotate(self, now_us: int) -> Signer:
        """Make a new signer, who signs what is dated from now on. Of two calls at once one makes it."""
        held = self._some()
        number = self._numbered()[-1][0] + 1
        self._make(f"signer-{number:08}.json", "signer", from_us=max(now_us, held[-1].from_us + 1))
        return self.held()[-1]

    def revoke(self, name: str, revoked_us: int) -> Signer:
        """Nothing that this signer ever signed counts any more. Durable on return, and safe to repeat.

        Raises NotFound (keys.signer), Misuse (keys.in_use), RefusedByState (keys.revoked: at another time).
        """
        held = self.held()
        if name not in [one.name for one in held]:
            raise NotFound(f"no signer is called {name}", code="keys.signer", hint="lucid keys signer list")
        if name == held[-1].name:
            raise Misuse(
                f"{name} signs now: another must be made first",
                code="keys.in_use",
                hint="lucid keys signer rotate",
            )
        self._files.make(f"revoked-{name}.json", {"name": name, "revoked_us": revoked_us})
        revoked = next(one for one in self.held() if one.name == name)
        if revoked.revoked_us != revoked_us:
            raise RefusedByState(f"{name} is revoked already, with another time", code="keys.revoked")
        return revoked

    def root(self, elsewhere: Path | None = None) -> Signer:
        """The key that signs trust files; elsewhere: its file, where it is kept offline.

        Raises NotFound (keys.root): it is not there, and is not made anew unasked. Unreadable
        (keys.unreadable), Misuse (keys.no_root).
        """
        path = elsewhere or self.directory / ROOT
        if not path.exists():
            raise NotFound(
                f"{path} is not there: the trust root, which signs trust files",
                code="keys.root",
                hint="where it is kept offline: --root-key FILE; if it is lost for good: --new-root",
            )
        try:
            root = _signer(parsed(path.read_bytes(), path), path)
        except OSError as error:
            raise Unreadable(f"{path} cannot be read: {error.strerror}", code="keys.unreadable") from None
        if not root.name.startswith("root-"):  # a signer that signs trust files vouches for itself
            raise Misuse(f"{path} is no root key", code="keys.no_root", hint="it was made as keys/root.json")
        return root

    def new_root(self) -> Signer:
        """Make a root in place of one that is lost: whoever verifies must learn its fingerprint.

        Raises RefusedByState (keys.root_there): there is one.
        """
        if self._files.blobs.read(ROOT) is not None:
            raise RefusedByState(f"{self.directory / ROOT} is there, and signs", code="keys.root_there")
        self._make(ROOT, "root")
        return self.root()

    def _some(self) -> list[Signer]:
        held = self.held()
        if not held:
            raise lost(self.directory, "signer")
        return held

    def _numbered(self) -> list[tuple[int, str]]:
        """The files of signers, by number."""
        found = [(SIGNER_FILE.fullmatch(name), name) for name in self._files.names("signer")]
        return sorted((int(match[1] or 1), name) for match, name in found if match)

    def _make(self, file: str, role: str, **more: int) -> None:
        """Make a key, or leave the one that another process made meanwhile."""
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
