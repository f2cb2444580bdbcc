"""What is erased, by destroying a session or rotating the master key, is nowhere in the data directory.

The search is shown to find the wrap while it is there, and the key and the picture where they are put there
on purpose. Where a file system of our own can be mounted, blocks that no file has any more are searched, too.
"""

import asyncio
import base64
import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import nats
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from handlers.crypto.key_file import KEY_FILE_BYTES, MAGIC, open_key_file, read_head
from infra.access.host_tokens import HostToken
from infra.jetstream import Jet, connect
from infra.keys.master import Keyring
from schemas.errors import Denied, Unavailable
from schemas.events.commands import CREATE_PREFIX, create_request
from schemas.events.session import SessionSettings
from streams.control.client import call
from tests.support.machine.absent import MAY_MOUNT, absent
from tests.support.machine.small_disk import small_disk
from tests.support.program.installation import (
    WAIT_S,
    Installation,
    Json,
    conductor_of,
    lucid,
    read_independently,
    running,
    source_arguments,
)
from tests.support.program.many_recorded import record_many

DISK_BYTES = 256 << 20
MARKER = hashlib.sha256(b"what nobody may ever find").digest()
PLAIN = b"".join(MARKER + os.urandom(224) for _ in range(4000))
"""About 1 MB that no codec makes smaller, recognisable in every 256 bytes."""
BLOCK = 8 << 20
OVERLAP = 4096
SECTOR = 512


def forms(secret: bytes) -> set[bytes]:
    """How a secret may stand in a file: raw, hex, base64 at each of three shifts."""
    found = {secret, secret.hex().encode(), secret.hex().upper().encode()}
    for shift in range(3):
        # without the characters that hold bits of what stands before and after
        text = base64.b64encode(bytes(shift) + secret)
        whole = text[4 if shift else 0 : len(text) // 4 * 4 - 4]
        found |= {whole, whole.translate(bytes.maketrans(b"+/", b"-_"))}
    return found


def holds(path: Path, secrets: set[bytes]) -> bool:
    """Whether any of the secrets stands in a file, or on a device."""
    with path.open("rb") as file:
        before = b""
        while block := file.read(BLOCK):
            text = before + block
            if any(secret in text for secret in secrets):
                return True
            before = text[-OVERLAP:]
    return False


def found(data: Path, secret: bytes) -> list[str]:
    """Files below the data directory that hold the secret in any form."""
    wanted = forms(secret)
    while True:
        files = [path for path in data.rglob("*") if path.is_file() and not path.is_symlink()]
        with contextlib.suppress(FileNotFoundError):  # the server has replaced it: all are searched anew
            return [str(path.relative_to(data)) for path in files if holds(path, wanted)]


async def create(url: str, session: str, **more: object) -> Json:
    """What the installation answers to a host that asks for a session, and says more than it is asked."""
    key = Ed25519PrivateKey.generate()
    public, settings = key.public_key().public_bytes_raw(), SessionSettings()
    asked = create_request(session, session, public, 1, bytes(32), settings)
    said = {
        "session": session,
        "at_us": 1,
        "who": session,
        "cause": f"create-{session}",
        "host": session,
        "host_key": public.hex(),
        "counter": 1,
        "prev_genesis": bytes(32).hex(),
        "settings": settings.model_dump(),
        "request": key.sign(CREATE_PREFIX + asked).hex(),
        **more,
    }
    said["token"] = HostToken(session, key)("create", said)
    client = await nats.connect(url)
    try:
        answer = await client.request("lucid.cmd.create", json.dumps(said).encode(), timeout=60)
        told: Json = json.loads(answer.data)
        return told
    finally:
        await client.close()


class Searched:
    """An installation with a session in it, and its secrets."""

    def __init__(self, system: Installation, image: Path | None) -> None:
        self.system, self.image = system, image

    async def record_many(self, hosts: Path, wanted: Sequence[tuple[str, str]], content: bytes) -> None:
        url, credential = self.system.nats_url, self.system.credential
        jet = await connect(url, name="hosts", timeout_s=WAIT_S, credential=credential)
        try:
            await record_many(jet, hosts, wanted, content)
        finally:
            await jet.close()

    def listed(self, name: str) -> list[Json]:
        """All sessions with this in their names."""
        found: list[Json] = self.system.json("sessions", "list", "--name", f"{name}-")["sessions"]
        return found

    def device(self) -> bytes:
        """Every byte of the disk, as it is after all that was written has reached it."""
        if self.image is None:
            absent("the right to mount a small ext4", MAY_MOUNT)
        os.sync()
        return self.image.read_bytes()

    def left_on_disk(self, written: Mapping[str, bytes]) -> set[str]:
        """The uids of these key files of which the device still has a sector."""
        pieces = {
            content[at : at + SECTOR]: uid
            for uid, content in written.items()
            for at in range(0, len(content), SECTOR)
        }
        device = self.device()
        sectors = (device[at : at + SECTOR] for at in range(0, len(device), SECTOR))
        return {pieces[sector] for sector in sectors if sector in pieces}

    def opening_on_disk(self) -> set[str]:
        """The uids of all keys that any master key of this installation opens, anywhere on the device."""
        device, masters = self.device(), Keyring(self.system.data / "keys").keks()
        found, at = set(), device.find(MAGIC)
        while at >= 0:
            raw = device[at : at + KEY_FILE_BYTES]
            with contextlib.suppress(Denied):
                uid = read_head(raw).uid
                open_key_file(masters, uid, raw)
                found.add(uid.hex())
            at = device.find(MAGIC, at + 1)
        return found

    def record(self, session: str) -> Json:
        said = self.system.record(
            "-", session, stdin=PLAIN, COMPRESSION_ALGORITHM="none", CHUNK_SIZE_MB="0.25"
        )
        assert said["plain"] == len(PLAIN)
        return said

    def wrap(self, uid: str) -> bytes:
        """Nonce and wrapped data key of a session, as its key file has them."""
        return self.key_file(uid).read_bytes()[44:116]

    def key_file(self, uid: str, data: Path | None = None) -> Path:
        return (data or self.system.data) / "keys" / "sessions" / uid[:2] / f"{uid}.key"

    def key(self, session: str, aside: Path) -> bytes:
        """The data key, taken out of the installation."""
        self.system.json("export", session, "--evidence", aside / session, "--with-keys")
        said: Json = json.loads((aside / session / "keys.json").read_bytes())
        return bytes.fromhex(said["dek"])

    def found(self, secret: bytes) -> list[str]:
        return found(self.system.data, secret)

    def found_on_disk(self, secret: bytes) -> bool:
        """Whether any block of the file system holds it, in a file or in none."""
        if self.image is None:
            return False
        os.sync()
        return holds(self.image, forms(secret))


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Searched]:
    folder = tmp_path_factory.mktemp("searched")
    with small_disk(folder, DISK_BYTES, "ext4", "tmpfs") as disk:
        if disk is None:
            absent("the right to mount a small file system", MAY_MOUNT)
        with running(disk.path / "data", LOG_LEVEL="DEBUG") as system:
            yield Searched(system, disk.image)
    shutil.rmtree(folder)


def test_a_destroyed_session_leaves_neither_key_nor_picture(searched: Searched, tmp_path: Path) -> None:
    """Breaks: who asked for a recording to be forgotten finds it in a backup of the disk."""
    system = searched.system
    searched.record("other")
    uid = searched.record("gone")["uid"]
    wrap, key = searched.wrap(uid), searched.key("gone", tmp_path)

    # the search can fail: it finds each of them where it is
    assert any(name.startswith("keys/") for name in searched.found(wrap))
    assert searched.image is None or searched.found_on_disk(wrap)
    assert searched.found(key) == searched.found(MARKER) == []
    planted = system.data / "temp"
    planted.mkdir(exist_ok=True)
    shutil.copy(tmp_path / "gone" / "keys.json", planted)
    (planted / "raw").write_bytes(b"x" * (BLOCK - 10) + key)
    (planted / "seen").write_bytes(b"..." + base64.b64encode(b"x" + MARKER))
    assert sorted(searched.found(key)) == ["temp/keys.json", "temp/raw"]
    assert searched.found(MARKER) == ["temp/seen"]
    for name in ("keys.json", "raw", "seen"):
        os.truncate(planted / name, 0)
        (planted / name).unlink()

    said = system.json("sessions", "destroy", "gone", "--yes")
    assert (said["state"], said["shredded"]) == ("DESTROYED", True)
    assert [searched.found(secret) for secret in (wrap, key, MARKER)] == [[], [], []]
    assert not searched.found_on_disk(wrap), "in a block that no file has any more"
    assert not list((system.data / "chunks").glob(f"{uid}/*"))
    assert system.json("verify", "other", "--open")["verdict"] == "true"


def test_a_destroyed_session_says_so_with_its_tombstone(searched: Searched, tmp_path: Path) -> None:
    """Breaks: nobody can tell destroyed evidence from evidence that never was, or was lost."""
    system = searched.system
    uid = searched.record("buried")["uid"]
    system.json("export", "buried", "--evidence", tmp_path / "copy")
    refused = system("sessions", "destroy", "buried")
    assert refused.status == 2, "nobody can answer here, and it was not told --yes"
    assert system.show("buried")["state"] == "STOPPED"
    assert system("sessions", "destroy", "buried", "--yes").status == 0

    shown = system.show("buried")
    assert (shown["state"], shown["shredded"]) == ("DESTROYED", True)
    for asked in (("verify", "buried"), ("export", "buried", "--out", str(tmp_path / "out"))):
        told = system(*asked, "--json")
        assert (told.status, told.json["code"]) == (5, "evidence.destroyed"), str(told)
        assert told.json["place"].endswith(f"{uid}.tombstone.dsse.json"), str(told)
    stone = Path(told.json["place"])
    assert "lucid verify" in system("verify", "buried").err

    # the tombstone is evidence of its own, and needs no installation
    system.json("export", "--trust-file", tmp_path / "trust.json")
    shutil.copy(stone, tmp_path / "stone")
    stone_asked = ("verify", tmp_path / "stone", "--trust", tmp_path / "trust.json", "--json")
    verified = lucid(*stone_asked, data=tmp_path / "none", cwd=tmp_path)
    assert (verified.status, verified.json["verdict"]) == (0, "true"), str(verified)
    assert verified.json["tombstone"]["uid"] == uid
    # what was carried away before can still be checked, and no longer be opened by the installation
    read = read_independently(tmp_path / "copy", "--trust", tmp_path / "trust.json", cwd=tmp_path)
    assert read.status == 0, str(read)
    again = system("record", *source_arguments("-"), "--session", "buried", stdin=b"x")
    assert again.status == 5, "a name is never used twice"


def test_nothing_is_taken_in_of_a_person_that_would_outlive_the_key(searched: Searched) -> None:
    """Breaks: a session is destroyed, and its log says for ever who was recorded."""
    system, person = searched.system, os.urandom(30)
    said = {"owner": base64.b64encode(person).decode()}
    refused = asyncio.run(create(system.nats_url, "named", labels=said))
    assert refused["error"]["code"] == "command.form"
    assert "labels" in refused["error"]["message"]
    assert "ok" in asyncio.run(create(system.nats_url, "named")), "it was refused for what it said besides"
    assert system("sessions", "destroy", "named", "--yes").status == 0
    assert searched.found(person) == []


def test_destroying_twice_or_something_else_is_answered_plainly(searched: Searched) -> None:
    """Breaks: a person who repeats a command, or mistypes a name, gets an outage or a traceback."""
    searched.record("twice")
    system = searched.system
    assert system("sessions", "destroy", "twice", "--yes").status == 0
    assert system("sessions", "destroy", "twice", "--yes").status in (0, 5)
    assert system("sessions", "destroy", "never-was", "--yes").status == 4
    assert system("sessions", "destroy", "no such name", "--yes").status == 2


def test_a_rotated_master_key_leaves_no_old_wrap(searched: Searched, tmp_path: Path) -> None:
    """Breaks: a stolen master key of last year opens what is in today's backup."""
    system = searched.system
    uid = searched.record("kept")["uid"]
    old, key = searched.wrap(uid), searched.key("kept", tmp_path)
    assert any(name.startswith("keys/") for name in searched.found(old))

    said = system.json("keys", "rotate")
    assert said["rewrapped"] >= 1
    new = searched.wrap(uid)
    assert new != old
    assert [searched.found(secret) for secret in (old, key, MARKER)] == [[], [], []]
    assert not searched.found_on_disk(old), "in a block that no file has any more"
    assert any(name.startswith("keys/") for name in searched.found(new))

    assert system.json("verify", "kept", "--open")["verdict"] == "true"
    told = system.json("export", "kept", "--out", tmp_path / "out")
    assert told["sha256"] == hashlib.sha256(PLAIN).hexdigest()
    assert searched.record("after")["sealed"], "and what comes next is recorded as before"


CROWD = 64


def sessions_of(crowd: str) -> list[tuple[str, str]]:
    """Half of them of one host, half of as many hosts; and one that stays."""
    hosts = [f"{crowd}-host"] * (CROWD // 2) + [f"{crowd}-{number}" for number in range(CROWD // 2)]
    return [(f"{crowd}-{number}", host) for number, host in enumerate(hosts)]


async def patient(jet: Jet, command: str, **said: str) -> Json:
    """The answer of a service that may be killed meanwhile: asked again, it is carried out once."""
    said = {"cause": os.urandom(8).hex(), **said}
    async with asyncio.timeout(WAIT_S):
        while True:
            with contextlib.suppress(Unavailable):
                return await call(jet, command, said, timeout_s=10)
            await asyncio.sleep(0.1)


async def destroy_crowd(searched: Searched, crowd: str, *, killed: bool) -> list[Json]:
    """Destroy all at once during two rotations. killed: the conductor is, when a quarter lost its key."""
    url, credential = searched.system.nats_url, searched.system.credential
    jet = await connect(url, name="crowd", timeout_s=WAIT_S, credential=credential)
    try:
        names = [name for name, _ in sessions_of(crowd)]
        keys = [searched.key_file((await call(jet, "show", {"session": name}))["uid"]) for name in names]
        asked = asyncio.gather(
            *(patient(jet, "destroy", session=name) for name in names),
            *(patient(jet, "rotate") for _ in range(2)),
        )
        if killed:
            async with asyncio.timeout(WAIT_S):
                while sum(not path.stat().st_size for path in keys) < CROWD // 4:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            conductor_of(searched.system).kill()
        *destroyed, _, _ = await asyncio.wait_for(asked, WAIT_S)
        return destroyed
    finally:
        await jet.close()


@pytest.mark.parametrize("crowd", ["calm", "killed"])
def test_of_64_sessions_destroyed_at_once_no_key_is_left_and_no_old_copy_opens_any(
    searched: Searched, tmp_path: Path, crowd: str
) -> None:
    """Breaks: many people are forgotten in one minute, and a backup of last night opens some of them."""
    system, stays = searched.system, f"{crowd}-stays"
    content = PLAIN[: 64 << 10]
    asyncio.run(searched.record_many(tmp_path / "hosts", [*sessions_of(crowd), (stays, stays)], content))
    shown = {one["session"]: one["uid"] for one in searched.listed(crowd)}
    gone = {name: uid for name, uid in shown.items() if name != stays}
    assert len(gone) == CROWD
    written = {uid: searched.key_file(uid).read_bytes() for uid in shown.values()}
    assert searched.left_on_disk(written) == set(shown.values())
    assert searched.opening_on_disk() >= set(shown.values())
    before = tmp_path / "before"
    shutil.copytree(system.data, before, ignore=shutil.ignore_patterns("keys", "lock", "run.json"))

    destroyed = asyncio.run(destroy_crowd(searched, crowd, killed=crowd == "killed"))
    assert [(one["state"], one["shredded"]) for one in destroyed] == [("DESTROYED", True)] * CROWD
    assert searched.left_on_disk(written) == set(), "the one that stays was put under another master key"
    opening = searched.opening_on_disk()
    assert shown[stays] in opening
    assert not opening & set(gone.values())
    assert not searched.found_on_disk(MARKER)
    for uid in gone.values():
        stone = (system.data / "manifests" / f"{uid}.tombstone.dsse.json").read_bytes()
        told = json.loads(base64.b64decode(json.loads(stone)["payload"]))
        assert {"place": "keys", "outcome": "overwritten"} in told["places"], "on a disk that is known"
        assert {place["place"] for place in told["places"]} > {"keys", "fragments", "chunks"}
    assert system.json("verify", stays, "--open")["verdict"] == "true"

    # the whole folder as it was, under the keys of today
    shutil.copytree(system.data / "keys", before / "keys")
    assert not any(searched.key_file(uid, before).stat().st_size for uid in gone.values())
    with running(before, LOG_LEVEL="INFO") as old:
        for name in (f"{crowd}-0", f"{crowd}-{CROWD - 1}"):
            opened = old("export", name, "--out", str(tmp_path / name))
            assert opened.status == 5, str(opened)
            assert not (tmp_path / name).exists()
        exported = old.json("export", stays, "--out", tmp_path / "stays")
        assert exported["sha256"] == hashlib.sha256(content).hexdigest()
