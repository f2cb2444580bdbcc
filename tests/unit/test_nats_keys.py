"""Keys and claims in the form of NATS, against published values and by other means than our own."""

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from infra.nats_accounts import claims
from infra.nats_accounts.accounts import Accounts, host, joining, make_accounts, read_accounts
from infra.nats_accounts.nkey import BadKey, Kind, Nkey, checked_public
from schemas.errors import Misuse, Unavailable

SEED = "SUACSSL3UAHUDXKFSNVUZRF5UHPMWZ6BFDTJ7M6USDXIEDNPPQYYYCU3VY"
PUBLIC = "UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4"
"""Of the documentation of NATS (nkey authentication)."""
LETTERS = {Kind.OPERATOR: "O", Kind.ACCOUNT: "A", Kind.USER: "U"}


def opened(jwt: str) -> dict[str, Any]:
    """The claims, once the signature of their issuer is checked."""
    head, body, signature = jwt.split(".")
    members: dict[str, Any] = json.loads(decoded(body))
    assert json.loads(decoded(head)) == {"typ": "JWT", "alg": "ed25519-nkey"}
    raw = base64.b32decode(members["iss"])[1:33]
    Ed25519PublicKey.from_public_bytes(raw).verify(decoded(signature), f"{head}.{body}".encode())
    return members


def decoded(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


def test_a_published_key_has_its_published_form() -> None:
    """Breaks: no server of NATS knows a key of ours."""
    key = Nkey.read(Kind.USER, SEED)
    assert (key.public, key.seed) == (PUBLIC, SEED)
    for kind, letter in LETTERS.items():
        made = Nkey.new(kind)
        assert (made.public[0], made.seed[:2]) == (letter, f"S{letter}")
        assert Nkey.read(kind, made.seed).public == checked_public(kind, made.public) == made.public


@pytest.mark.parametrize(
    "text",
    [
        "",
        "S",
        SEED[:-1],
        SEED + "A",
        SEED.lower(),
        SEED[:-2] + "AA",
        "é" * 58,
        PUBLIC,
        SEED[:20] + "=" + SEED[21:],
    ],
)
def test_a_mistyped_key_is_refused_and_not_repeated(text: str) -> None:
    """Breaks: a secret stands in a log, or a key with a wrong letter is another key."""
    with pytest.raises(BadKey) as refused:
        Nkey.read(Kind.USER, text)
    assert not text or text not in str(refused.value)
    with pytest.raises(BadKey):
        Nkey.read(Kind.ACCOUNT, SEED)
    with pytest.raises(BadKey):
        checked_public(Kind.ACCOUNT, PUBLIC)


def test_equal_claims_give_equal_text_and_every_change_breaks_them() -> None:
    """Breaks: the address of the server changes at every start, or a host gives itself more rights."""
    key = Nkey.read(Kind.USER, SEED)
    account = Nkey(Kind.ACCOUNT, bytes(range(32)))
    rights = claims.Rights(publish=("lucid.ask.host-1.*",))
    made = claims.user(account, key.public, "host-1", rights, 1_700_000_000, 1_700_003_600)
    assert made == claims.user(account, key.public, "host-1", rights, 1_700_000_000, 1_700_003_600)
    assert hashlib.sha256(made.encode()).hexdigest() == VECTOR
    members = opened(made)
    assert (members["sub"], members["iss"], members["exp"]) == (PUBLIC, account.public, 1_700_003_600)
    assert members["nats"]["pub"] == {"allow": ["lucid.ask.host-1.*"]}
    head, _, signature = made.split(".")
    more = {**members, "nats": {**members["nats"], "pub": {}}}
    changed = base64.urlsafe_b64encode(json.dumps(more).encode()).decode().rstrip("=")
    with pytest.raises(InvalidSignature):
        opened(f"{head}.{changed}.{signature}")


VECTOR = "bf4404e286ec9ce39c862e6e606561a47fe9a0b07e02d7626659455eda69044e"


def test_each_host_has_an_account_of_its_own_name_and_subjects() -> None:
    """Breaks: two hosts share an account, and one takes the answers of the other."""
    accounts = Accounts.new()
    one, other, machine = host("host-1"), host("host-2"), joining("host-1")
    assert len({accounts.account_of(guest) for guest in (one, other, machine)}) == 3
    claimed = opened(accounts.guest_claims(one, {PUBLIC: 5}, 1_700_000_000))
    assert claimed["sub"] == accounts.account_of(one)
    assert [found["subject"] for found in claimed["nats"]["imports"]] == [
        "lucid.rec.*.host-1.*",
        "lucid.ask.host-1.*",
        "lucid.told.host-1.*",
    ]
    assert {found["account"] for found in claimed["nats"]["imports"]} == {accounts.application}
    assert claimed["nats"]["limits"]["disk_storage"] == 0
    assert claimed["nats"]["revocations"] == {PUBLIC: 5}
    user = opened(accounts.credential(one, PUBLIC, 1_700_000_000, 1_700_003_600))
    assert user["iss"] == accounts.account_of(one)
    assert user["nats"]["pub"]["allow"] == ["lucid.rec.*.host-1.*", "lucid.ask.host-1.*"]
    assert user["nats"]["sub"]["allow"] == ["_INBOX.>", "lucid.told.host-1.*"]


@pytest.mark.parametrize("name", ["*", ">", "a.b", "a b", "", "host-1.>", "h" * 65])
def test_a_name_that_is_a_pattern_is_no_host(name: str) -> None:
    """Breaks: a host that joins as `*` publishes as every host."""
    with pytest.raises(Misuse):
        host(name)
    with pytest.raises(Misuse):
        joining(name)


def test_the_keys_of_a_server_are_made_once_and_never_replaced(tmp_path: Path) -> None:
    """Breaks: after a restart no host is believed any more."""
    assert read_accounts(tmp_path) is None
    made = make_accounts(tmp_path)
    path = tmp_path / "identity.json"
    assert path.stat().st_mode & 0o777 == 0o600
    again = read_accounts(tmp_path)
    assert again is not None
    assert again.first_claims() == made.first_claims()
    assert again.application_login() == made.application_login()
    assert again.account_of(host("host-1")) == made.account_of(host("host-1"))
    whole = path.read_bytes()
    for damaged in (b"", b"{}", whole[:-10], whole.replace(b'"SO', b'"SA')):
        path.write_bytes(damaged)
        with pytest.raises(Unavailable, match=r"nats\.identity"):
            read_accounts(tmp_path)
