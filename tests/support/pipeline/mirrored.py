"""An installation whose keys/ has a mirror, for tests."""

from dataclasses import replace
from pathlib import Path

from handlers.crypto.key_file import build_key_file
from infra.keys.place import DiskKeyPlace
from schemas.errors import LucidError
from streams.keys.folder import order_erasure
from streams.roles.drivers import Installation
from tests.support.pipeline.conducted import World

KEPT, DESTROYED, LATER = (bytes([number]) * 16 for number in range(1, 4))


class Pair:
    """Both folders, and the log."""

    def __init__(self, world: World, path: Path) -> None:
        self.world = world
        self.first, self.mirror = DiskKeyPlace(world.data.path / "keys"), DiskKeyPlace(path / "mirror")

    @property
    def here(self) -> Installation:
        """As a new process has it."""
        return self.at(self.first, self.mirror)

    def at(self, first: DiskKeyPlace, mirror: DiskKeyPlace | None) -> Installation:
        paths = {"keys_path": first.path, "keys_mirror": mirror.path if mirror else None}
        return Installation(replace(self.world.settings, data=self.world.data.path, **paths))

    async def open(self, here: Installation | None = None) -> None:
        await (here or self.here).logged_keys(self.world.jet).open()

    async def refused(self, here: Installation | None = None) -> str:
        """The code of what a start says; empty: it starts."""
        try:
            await self.open(here)
        except LucidError as error:
            return error.code
        return ""

    def make(self, uid: bytes, here: Installation | None = None) -> bytes:
        here = here or self.here
        version, master = here.keyring.newest()
        return here.key_files.make(uid, build_key_file(master, version, uid, uid * 2))

    async def destroy(self, uid: bytes) -> str:
        await order_erasure(self.world.jet, uid)
        return self.here.key_files.erase(uid)


def held(place: DiskKeyPlace) -> dict[bytes, bytes]:
    """Every key file of one folder, by session."""
    found = {}
    for uid in place.files.uids():
        file = place.files.open(uid)
        assert file is not None
        file.close()
        found[uid] = file.data
    return found


def small_files(place: DiskKeyPlace) -> dict[str, bytes]:
    """Every other file."""
    return {path.name: path.read_bytes() for path in place.path.iterdir() if path.is_file()}
