"""Destroying where a disk is full, or mounted read-only: what is said, what goes on, that nothing is lost.

One system for all tests but the last; its keys/ lies on an ext4 of its own. Each leaves the disk as it was.
"""

import base64
import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.machine.absent import MAY_MOUNT, absent
from tests.support.machine.small_disk import Disk, small_disk
from tests.support.program.installation import VERB_S, Done, Installation, conductor_of, running, until

DISK_BYTES = 16 << 20
NO_SPACE, UNAVAILABLE = 8, 7


class Bad:
    """A system, and the disk that its keys/ is on."""

    def __init__(self, system: Installation, disk: Disk) -> None:
        self.system, self.disk = system, disk
        self.keys = disk.path / "keys"

    def __call__(self, *arguments: str | Path, stdin: bytes | None = None) -> Done:
        return self.system(*arguments, stdin=stdin, KEYS_PATH=str(self.keys))

    def record(self, *sessions: str) -> list[str]:
        """Record short sessions; their uids."""
        return [self.system.record("-", one, stdin=os.urandom(10_000))["uid"] for one in sessions]

    def opens(self, session: str) -> bool:
        """Whether its key is there, and opens all of it."""
        return self("verify", session, "--open").status == 0

    def key_size(self, uid: str) -> int:
        return (self.keys / "sessions" / uid[:2] / f"{uid}.key").stat().st_size

    def tombstone(self, uid: str) -> Path:
        return self.system.data / "manifests" / f"{uid}.tombstone.dsse.json"

    def outcome(self, uid: str) -> str:
        """What a tombstone says of the key."""
        said = json.loads(base64.b64decode(json.loads(self.tombstone(uid).read_bytes())["payload"]))
        (found,) = (place["outcome"] for place in said["places"] if place["place"] == "keys")
        return str(found)

    def half_made(self) -> list[Path]:
        return [path for path in self.keys.rglob(".*") if path.is_file()]

    @contextmanager
    def full(self) -> Iterator[None]:
        self.disk.fill_up()
        try:
            yield
        finally:
            self.disk.empty()

    @contextmanager
    def read_only(self) -> Iterator[None]:
        self._remount("ro")
        try:
            yield
        finally:
            self._remount("rw")

    def _remount(self, how: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{how}", str(self.disk.path)], check=True)


@pytest.fixture(scope="module")
def bad(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bad]:
    folder = tmp_path_factory.mktemp("bad")
    with small_disk(folder, DISK_BYTES, "ext4") as disk:
        if disk is None:
            absent("the right to mount a small ext4", MAY_MOUNT)
        with running(folder / "data", KEYS_PATH=str(disk.path / "keys"), LOG_LEVEL="INFO") as system:
            yield Bad(system, disk)


def test_on_a_full_disk_of_keys_destroying_goes_on_and_all_else_says_what_it_wants(bad: Bad) -> None:
    """Breaks: who is to be forgotten waits for room, or a rotation on a full disk takes keys with it."""
    gone, _ = bad.record("gone", "stays")
    with bad.full():
        told = bad("keys", "rotate", "--json")
        while "master key version" not in told.json["detail"]:  # until a version has room, and no key has
            assert (told.status, told.json["code"]) == (NO_SPACE, "keys.space"), str(told)
            os.truncate(bad.disk.ballast, bad.disk.ballast.stat().st_size - 1024)
            told = bad("keys", "rotate", "--json")
        assert (told.status, told.json["code"]) == (NO_SPACE, "keys.space"), str(told)
        assert "2 could not be and stay as they were" in told.json["detail"]
        assert bad.opens("gone")
        assert bad.opens("stays")
        assert bad.half_made() == []

        refused = bad("record", "--input", "-", "--session", "new", "--json", stdin=b"x")
        assert (refused.status, refused.json["code"]) == (NO_SPACE, "keys.space"), str(refused)
        assert str(bad.keys) in refused.json["detail"]
        new = bad.system.show("new")
        assert (new["state"], new["waits_for"]["code"]) == ("STARTING", "keys.space")
        assert bad.half_made() == []

        done = bad("sessions", "destroy", "gone", "--yes", "--json")
        assert (done.status, done.json["shredded"]) == (0, True), str(done)
        assert (bad.key_size(gone), bad.outcome(gone)) == (0, "overwritten")
    bad.system.until("new", lambda shown: shown["state"] == "ACTIVE" and "waits_for" not in shown)
    assert bad("sessions", "destroy", "new", "--yes").status == 0
    told = bad("keys", "rotate", "--json")
    assert (told.status, told.json["rewrapped"]) == (0, 1), str(told)
    assert bad.opens("stays")


def test_what_a_read_only_disk_keeps_from_being_erased_is_not_called_destroyed(bad: Bad) -> None:
    """Breaks: a disk that failed is mounted read-only, and a tombstone stands for a key that opens."""
    uids = bad.record("alone", "again", "open")[:2]
    with bad.read_only():
        told = bad("sessions", "destroy", "alone", "again", "--yes", "--json")
        assert told.status == UNAVAILABLE, str(told)
        for one in told.json["sessions"]:  # what fails for one is ordered for the other, too
            assert one["code"] == "keys.read_only", str(told)
            assert "mount it read-write" in one["hint"]
        assert all(bad.key_size(uid) and not bad.tombstone(uid).exists() for uid in uids)
        shown = bad("sessions", "show", "alone")
        assert "CLEANUP" in shown.out
        assert "keys.read_only" in shown.out
        assert bad.system.json("sessions", "list", "--state", "DESTROYED", "--name", "al")["sessions"] == []
        assert bad.opens("open"), "what only reads keys needs no more"
        refused = bad("keys", "rotate", "--json")
        assert (refused.status, refused.json["code"]) == (UNAVAILABLE, "keys.read_only"), str(refused)
        assert "read-only" in bad("doctor").out
    # one is repeated by a person, the other one by nobody
    assert bad("sessions", "destroy", "again", "--yes").status == 0
    bad.system.until("alone", lambda shown: shown["shredded"])
    assert [(bad.key_size(uid), bad.outcome(uid)) for uid in uids] == [(0, "overwritten")] * 2
    assert bad.opens("open")


def test_a_start_beside_read_only_keys_is_refused_with_the_cure(bad: Bad) -> None:
    """Breaks: what starts on a failed disk takes orders to destroy that it cannot carry out."""
    bad.record("before")
    assert bad.system.stop() == 0
    with bad.read_only():
        refused = bad("up", "--json")
        assert (refused.status, refused.json["code"]) == (UNAVAILABLE, "keys.read_only"), str(refused)
        assert str(bad.keys) in refused.json["detail"]
        assert "mount it read-write" in refused.json["hint"]
        assert "read-only" in bad("doctor").out
    with bad.full():  # whatever was destroyed before
        bad.system.start()
    assert bad.opens("before")


def test_a_disk_that_fills_while_sessions_are_destroyed_only_delays_them(tmp_path: Path) -> None:
    """Breaks: a full disk leaves people half forgotten, or a tombstone for a key that is still there."""
    with small_disk(tmp_path, 16 * DISK_BYTES, "ext4") as disk:
        if disk is None:
            absent("the right to mount a small ext4", MAY_MOUNT)
        with running(disk.path / "data", LOG_LEVEL="INFO") as system:
            one = Bad(system, Disk(system.data, disk.image))
            uids = one.record("gone", "late", "stays")
            destroying = system.started("sessions", "destroy", "gone", "--yes", "--json")
            until(lambda: not list(system.data.glob(f"chunks/{uids[0]}/*")), "it is emptied", every_s=0.01)
            conductor = conductor_of(system)
            conductor.suspend()  # in the pause before the tombstone
            disk.fill_up()
            conductor.resume()
            out, _ = destroying.communicate(timeout=VERB_S)
            late = one("sessions", "destroy", "late", "--yes", "--json")
            # What emptying gives back may be room enough.
            assert {destroying.returncode, late.status} <= {0, UNAVAILABLE, NO_SPACE}, out.decode() + str(
                late
            )
            assert system.show("gone")["shredded"] or destroying.returncode
            assert [one.tombstone(uid).exists() and bool(one.key_size(uid)) for uid in uids] == [False] * 3
            disk.empty()
            system.until("gone", lambda shown: shown["shredded"])
            until(
                lambda: (
                    one("sessions", "destroy", "late", "--yes").status == 0 or system.show("late")["shredded"]
                ),
                "there is room again",
            )
            assert [one.outcome(uid) for uid in uids[:2]] == ["overwritten"] * 2
            assert one.opens("stays")
