"""The installation's secrets and the host's, on a real file system."""

import base64
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from infra.keys.host_identity import HostIdentity
from infra.keys.master import Keyring
from infra.keys.signers import Signers
from schemas.errors import Denied, Misuse, Unavailable

KEY_A = base64.b64encode(b"a" * 32).decode()
KEY_B = base64.b64encode(b"b" * 32).decode()


def test_processes_that_start_at_once_hold_the_same_keys(tmp_path: Path) -> None:
    """Breaks: a worker wraps with a key that the conductor never had, and the session is lost."""

    def start(_: int) -> tuple[tuple[int, bytes], bytes, bytes]:
        signers = Signers(tmp_path / "keys")
        signers.begin()
        return Keyring(tmp_path / "keys").begin(), signers.at(0).public, signers.root().public

    with ThreadPoolExecutor(8) as threads:
        assert len(set(threads.map(start, range(8)))) == 1


def test_secrets_are_readable_by_their_owner_only(tmp_path: Path) -> None:
    """Breaks: another user of the machine signs manifests."""
    ring = Keyring(tmp_path / "keys")
    ring.begin()
    Signers(tmp_path / "keys").begin()
    for path in (tmp_path / "keys").iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "keys").stat().st_mode) == 0o700


def test_a_new_version_wraps_and_the_old_one_still_opens(tmp_path: Path) -> None:
    """Breaks: a rotation makes every stored session unreadable."""
    ring = Keyring(tmp_path)
    first = ring.begin()
    assert ring.add_version() == 2
    assert ring.newest()[0] == 2
    assert ring.keks()[1] == first[1]
    assert len(set(ring.keks().values())) == 2


def test_a_master_key_from_the_environment_is_on_no_disk(tmp_path: Path) -> None:
    """Breaks: who steals the disk has the keys."""
    ring = Keyring(tmp_path, KEY_A)
    version, key = ring.begin()
    ring.add_version()
    raw = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert key.hex().encode() not in raw
    assert key not in raw
    assert Keyring(tmp_path, KEY_A).keks()[version] == key


def test_a_wrong_or_missing_encryption_key_is_told_before_anything_is_wrapped(tmp_path: Path) -> None:
    """Breaks: half of the sessions are wrapped under a typing mistake."""
    Keyring(tmp_path, KEY_A).begin()
    for call in (Keyring(tmp_path, KEY_B).newest, Keyring(tmp_path, KEY_B).keks):
        with pytest.raises(Denied) as denied:
            call()
        assert denied.value.code == "keys.master"
    with pytest.raises(Denied, match="not set"):
        Keyring(tmp_path).newest()
    assert Keyring(tmp_path).keks() == {}


def test_a_lost_salt_is_never_made_anew(tmp_path: Path) -> None:
    """Breaks: every session is lost: the salt that returns in a copy is taken for another installation's."""
    ring = Keyring(tmp_path, "correct horse battery")
    _, key = ring.begin()
    salt = (tmp_path / "salt").read_bytes()
    (tmp_path / "salt").unlink()
    again = Keyring(tmp_path, "correct horse battery")
    for call in (again.keks, again.newest, again.begin, again.add_version):
        with pytest.raises(Unavailable, match=r"salt.*keys\.lost"):
            call()
    assert not (tmp_path / "salt").exists()
    (tmp_path / "salt").write_bytes(salt)
    assert again.keks() == {1: key}


def test_an_encryption_key_that_is_set_later_wraps_what_is_new(tmp_path: Path) -> None:
    """Breaks: the operator sets ENCRYPTION_KEY and it silently does nothing."""
    old = Keyring(tmp_path).begin()
    assert Keyring(tmp_path, KEY_A).newest()[0] == 2
    assert Keyring(tmp_path, KEY_A).keks()[1] == old[1]


@pytest.mark.parametrize("kdf", ["argon2id", "pbkdf2"])
def test_a_passphrase_gives_the_same_key_again(tmp_path: Path, kdf: str) -> None:
    """Breaks: after a restart nothing opens."""
    said = "correct horse battery"
    first = Keyring(tmp_path, said, kdf).begin()  # type: ignore[arg-type]
    assert Keyring(tmp_path, said, kdf).newest() == first  # type: ignore[arg-type]
    with pytest.raises(Denied):
        Keyring(tmp_path, said + "!", kdf).newest()  # type: ignore[arg-type]


def test_a_short_passphrase_is_refused(tmp_path: Path) -> None:
    """Breaks: evidence stands behind `hunter2`."""
    with pytest.raises(Misuse) as error:
        Keyring(tmp_path, "hunter2").begin()
    assert error.value.code == "config.encryption_key"


def test_a_counter_is_never_given_to_two_sessions(tmp_path: Path) -> None:
    """Breaks: two sessions share a uid, and so their keys and files."""
    with HostIdentity(tmp_path, "host-1") as host:
        assert host.begin("a") == 1
    with HostIdentity(tmp_path, "host-1") as host:
        assert host.begin("a") == 1, "the same session asks again after a crash"
        host.settle("a", b"g" * 32)
        assert host.begin("b") == 2
        assert host.begin("c") == 3, "b was never heard of again"
        host.settle("b", b"x" * 32)
        assert host.prev_genesis == b"g" * 32, "only the pending session can settle"
        host.settle("c", b"c" * 32)
    with HostIdentity(tmp_path, "host-1") as host:
        assert host.prev_genesis == b"c" * 32
        assert host.begin("d") == 4


def test_sessions_that_begin_together_have_counters_of_their_own(tmp_path: Path) -> None:
    """Breaks: after a crash nobody knows which sessions of a turn have which counters."""
    with HostIdentity(tmp_path, "host-1") as host:
        assert host.begin("a") == 1
        assert host.begin_all(["b", "c"], b"a" * 32) == 2
    with HostIdentity(tmp_path, "host-1") as host:
        assert host.pending == (("b", 2), ("c", 3))
        assert host.prev_genesis == b"a" * 32
        assert host.begin_all(["c"], b"c" * 32) == 4, "a turn takes new counters, also for the same session"
        host.settle("c", b"d" * 32)
        assert host.pending == ()
        assert host.begin("e") == 5
        assert host.pending == (("e", 5),)


def test_a_host_keeps_its_key_and_shares_it_with_none(tmp_path: Path) -> None:
    """Breaks: yesterday's evidence names another key than today's."""
    with HostIdentity(tmp_path, "host-1") as one, HostIdentity(tmp_path, "host-2") as two:
        first, other = one.public, two.public
    with HostIdentity(tmp_path, "host-1") as again:
        assert again.public == first != other


def test_two_processes_cannot_hold_one_host(tmp_path: Path) -> None:
    """Breaks: both take the same counter; whatever files were removed meanwhile."""
    with HostIdentity(tmp_path, "host-1"):
        for path in (tmp_path / "host-1").iterdir():
            path.unlink()
        with pytest.raises(Unavailable) as error:
            HostIdentity(tmp_path, "host-1")
    assert error.value.code == "host.locked"
    HostIdentity(tmp_path, "host-1").close()


def test_a_crash_while_the_state_is_replaced_keeps_the_old_one(tmp_path: Path) -> None:
    """Breaks: the counter starts again from zero."""
    with HostIdentity(tmp_path, "host-1") as host:
        host.begin("a")
    (tmp_path / "host-1" / ".state.json").write_bytes(b'{"coun')
    with HostIdentity(tmp_path, "host-1") as host:
        assert host.begin("b") == 2
    (tmp_path / "host-1" / "state.json").write_bytes(b"")
    with HostIdentity(tmp_path, "host-1") as host, pytest.raises(Unavailable) as error:
        host.begin("c")
    assert error.value.code == "host.damaged"
