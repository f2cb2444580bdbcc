"""The trust file: what is not wholly right is no trust file, and then nothing can be said at all."""

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from handlers.crypto.trust import build_trust, open_trust, replaces
from schemas.errors import Misuse, outcome
from schemas.format import dsse
from schemas.format.jcs import jcs, strict_loads
from schemas.format.trust import TrustKey
from tests.support.evidence.recorded_session import HOST_PUBLIC, ROOT, SIGNING, trust

ROOT_PUBLIC = ROOT.public_key().public_bytes_raw()
LINE = TrustKey(key=SIGNING.public, role="signer", name="s", from_us=10, until_us=20, revoked_us=0)


def built(serial: int = 1, root: Ed25519PrivateKey = ROOT, issued_us: int = 0) -> bytes:
    public = root.public_key().public_bytes_raw()
    return build_trust([LINE], serial=serial, issued_us=issued_us, root=public, sign=root.sign, life_us=100)


def test_a_trust_file_that_we_build_is_one() -> None:
    """Breaks: an installation cannot say whom it trusts."""
    opened = open_trust(built(serial=4), now_us=99, root=dsse.fingerprint(ROOT_PUBLIC))
    assert (opened.serial, opened.root) == (4, dsse.fingerprint(ROOT_PUBLIC))
    assert opened.name(SIGNING.public, "signer") == "s"
    assert opened.name(SIGNING.public, "host") == ""


def test_a_key_counts_from_its_first_microsecond_to_before_its_last() -> None:
    """Breaks: a key counts at a time for which its owner never vouched."""
    opened = open_trust(built(), now_us=0)
    assert [opened.lists(SIGNING.public, "signer", at) for at in (9, 10, 19, 20)] == [
        False,
        True,
        True,
        False,
    ]
    assert not opened.lists(SIGNING.public, "host", 15)
    assert not opened.lists(HOST_PUBLIC, "signer", 15)


def test_an_expired_file_is_refused_from_its_last_microsecond_on() -> None:
    """Breaks: a key that was withdrawn long ago is trusted by who never looked again."""
    assert open_trust(built(), now_us=99)
    with pytest.raises(Misuse) as refused:
        open_trust(built(), now_us=100)
    assert (refused.value.code, outcome(refused.value).exit_code) == ("trust.expired", 2)


def test_a_file_of_another_root_is_refused() -> None:
    """Breaks: whoever hands over the evidence also chooses who vouches for it."""
    with pytest.raises(Misuse, match=r"trust\.root"):
        open_trust(built(), now_us=0, root=bytes(32))


def test_every_byte_of_a_trust_file_is_bound() -> None:
    """Breaks: a key is slipped into a file that its root signed."""
    good = trust()
    for place in range(len(good)):
        broken = bytearray(good)
        broken[place] ^= 1 << place % 8
        with pytest.raises(Misuse, match=r"trust\.(malformed|root|signature)"):
            open_trust(bytes(broken), now_us=1)


def test_a_root_that_did_not_sign_is_refused() -> None:
    """Breaks: a file that names a known root, and is signed by nobody of that name, is trusted."""
    other = Ed25519PrivateKey.generate()
    payload = dsse.parse(built(), dsse.TRUST).payload
    public = other.public_key().public_bytes_raw()
    for raw, code in (
        (dsse.build(payload, dsse.TRUST, other.sign, ROOT_PUBLIC), "trust.signature"),
        (dsse.build(payload, dsse.TRUST, other.sign, public), "trust.root"),
        (dsse.build(payload, dsse.MANIFEST, ROOT.sign, ROOT_PUBLIC), "trust.malformed"),
        (b"", "trust.malformed"),
        (b"{}", "trust.malformed"),
    ):
        with pytest.raises(Misuse) as refused:
            open_trust(raw, now_us=0)
        assert refused.value.code == code


def test_only_a_later_file_of_the_same_root_replaces_one() -> None:
    """Breaks: an old trust file brings a revoked key back."""
    assert replaces(built(3), built(3))
    assert replaces(built(3), built(4))
    assert not replaces(built(3), built(2))
    assert not replaces(built(3), built(4, Ed25519PrivateKey.generate()))
    assert not replaces(b"a letter", built(4))


def test_a_trust_file_says_nothing_twice() -> None:
    """Breaks: members that a newer writer added are passed over by an older reader."""
    said = strict_loads(dsse.parse(built(), dsse.TRUST).payload)
    more = dsse.build(jcs(said | {"x": 1}), dsse.TRUST, ROOT.sign, ROOT_PUBLIC)
    with pytest.raises(Misuse, match=r"trust\.malformed"):
        open_trust(more, now_us=0)
