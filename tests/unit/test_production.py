"""What `LUCID_ENV=production` refuses."""

import base64
import secrets

import pytest

from infra.config.load import load_settings
from schemas.config.production import NEEDS, weakness
from schemas.config.this_machine import is_this_machine
from schemas.errors import Misuse, Misuses

ROLES = ("worker", "conductor", "recorder", "pipeline", "processor", "storage", "api", "http")
GOOD = {
    "LUCID_ENV": "production",
    "NATS_URL": "tls://lucid:pw@nats-1.example,tls://lucid:pw@nats-2.example",
    "MONGODB_URL": "mongodb://lucid:pw@db-1.example:27017,db-2.example/lucid?replicaSet=r",
    "ENCRYPTION_KEY": "q1bJxO7mTr0v8yq2eWbH3m5kTzUuN4cP9dLr6sVwX0E=",
    "SECRET_KEY": "5f0c9be1d7a24e86b3c1f47a90d2e85c",
    "JWT_SECRET_KEY": "Zt4-mV9pQx2_Lr7kWc1sBn8yHd5jUe3aGf6o",
}


def wrong(role: str, **environ: str | None) -> set[str]:
    """The codes of the errors that these variables give, beside good ones."""
    given = {name: text for name, text in {**GOOD, **environ}.items() if text is not None}
    try:
        load_settings(given, role)
    except Misuses as several:
        return {one.code for one in several.each}
    except Misuse as error:
        return {error.code}
    return set()


@pytest.mark.parametrize("role", ["", *ROLES])
def test_everything_that_production_asks_for_lets_every_role_start(role: str) -> None:
    """Breaks: nobody can start it in production at all."""
    assert wrong(role) == set()


@pytest.mark.parametrize("role", ["", *ROLES])
def test_each_role_is_refused_for_each_thing_that_it_lacks_all_at_once(role: str) -> None:
    """Breaks: a service runs in production with a secret that was made on the side, or on a local server."""
    codes = {name: f"config.{name.lower()}" for name in NEEDS[role]}
    if "JWT_SECRET_KEY" in codes:
        codes["JWT_SECRET_KEY"] = "config.jwt_secret"
    assert wrong(role, **dict.fromkeys(NEEDS[role])) == set(codes.values())
    for name, code in codes.items():
        assert wrong(role, **{name: None}) == {code}


def test_the_keys_of_an_auth_service_stand_for_the_secret_of_tokens() -> None:
    """Breaks: an installation with an auth service must keep a secret that it does not need."""
    assert wrong("api", JWT_SECRET_KEY=None, JWT_JWKS_URL="https://auth.example/keys") == set()


@pytest.mark.parametrize(
    "url",
    [
        *("http://auth.example/keys", "HTTP://auth.example/keys", "http://127.0.0.1:8080/keys"),
        *("https://localhost/keys", "https://[::1]:8443/keys", "https://127.1/keys", "https://0.0.0.0/keys"),
    ],
)
def test_keys_of_tokens_come_over_https_from_another_machine(url: str) -> None:
    """Breaks: whoever listens between the API and its auth service signs tokens of an administrator."""
    for role in ("api", "conductor"):
        assert wrong(role, JWT_SECRET_KEY=None, JWT_JWKS_URL=url) == {"config.jwt_jwks"}
    assert wrong("worker", JWT_JWKS_URL=url) == wrong("", JWT_JWKS_URL=url) == set()
    load_settings({"JWT_JWKS_URL": url}, "api")


def test_keys_of_tokens_may_lie_in_a_file() -> None:
    """Breaks: keys that an orchestrator mounts cannot be used in production."""
    assert wrong("api", JWT_SECRET_KEY=None, JWT_JWKS_URL="file:///run/keys.json") == set()


def test_a_host_and_a_persons_command_need_no_secret_of_the_services() -> None:
    """Breaks: the master key is copied to every RDP host, because a check asks for it there."""
    secret = ("ENCRYPTION_KEY", "SECRET_KEY", "MONGODB_URL", "JWT_SECRET_KEY")
    assert wrong("", **dict.fromkeys(secret)) == set()


@pytest.mark.parametrize(
    "host",
    [
        *("localhost", "LOCALHOST.", "api.localhost", "127.0.0.1", "127.1.2.3", "[::1]", "0.0.0.0", "[::]"),
        *("[::ffff:127.0.0.1]", "127.1", "2130706433", "0x7f.1", "017700000001", "[0:0:0:0:0:0:0:1]"),
        "ip6-localhost",
    ],
)
@pytest.mark.parametrize(
    ("name", "url"),
    [
        ("NATS_URL", "nats://{}:4222"),
        ("NATS_URL", "tls://user:password@{}"),
        ("NATS_URL", "nats://nats-1.example:4222,tls://token@{}:4222"),
        ("MONGODB_URL", "mongodb://{}"),
        ("MONGODB_URL", "mongodb://user:p%40w@db.example,{}:27017/lucid?tls=true"),
    ],
)
def test_a_server_on_this_machine_is_refused_however_it_is_written(name: str, url: str, host: str) -> None:
    """Breaks: production keeps its evidence in a server that ends with the container."""
    with pytest.raises(Misuse) as error:
        load_settings({**GOOD, name: url.format(host)}, "api")
    assert error.value.code == f"config.{name.lower()}"
    assert "on this machine" in error.value.message
    assert "password" not in error.value.message


@pytest.mark.parametrize("url", ["mongodb+srv://localhost", "mongodb://%2Ftmp%2Fmongodb-27017.sock/x"])
def test_a_socket_and_a_srv_name_of_this_machine_are_refused(url: str) -> None:
    """Breaks: the same, by the two other forms of the URL."""
    assert wrong("storage", MONGODB_URL=url) == {"config.mongodb_url"}


@pytest.mark.parametrize(
    "host", ["nats", "localhost.example", "10.0.0.1", "fd00::1", "127.example", "mylocalhost", "128.0.0.1"]
)
def test_another_machine_is_not_taken_for_this_one(host: str) -> None:
    """Breaks: a right configuration does not start."""
    assert not is_this_machine(host)


@pytest.mark.parametrize(
    ("secret", "why"),
    [
        ("short-but-chance", ""),
        ("Xk29!pq", "characters"),
        ("changeme-changeme-changeme-changeme", "default"),
        ("Change_Me-please-in-production-0123", "default"),
        ("your-secret-key-goes-here-0123456789", "default"),
        ("a" * 64, "different"),
        ("abababababababababababababababab", "different"),
        ("Kq8#vZ2m" * 4, "repeats"),
        (base64.b64encode(bytes(32)).decode(), "different"),
        (base64.b64encode(bytes(range(32))).decode(), "neighbours"),
        (base64.b64encode(b"Kq8#vZ2m,wx!73-Q" * 2).decode(), "repeats"),
    ],
)
def test_a_secret_that_can_be_guessed_is_refused(secret: str, why: str) -> None:
    """Breaks: a key from a tutorial seals the evidence."""
    assert why in weakness(secret) if why else weakness(secret) == ""


def test_a_secret_by_chance_is_never_refused() -> None:
    """Breaks: a good key is refused at the worst moment."""
    for _ in range(2000):
        raw = secrets.token_bytes(32)
        assert [weakness(text) for text in (raw.hex(), base64.b64encode(raw).decode())] == ["", ""]


@pytest.mark.parametrize("name", ["ENCRYPTION_KEY", "SECRET_KEY", "JWT_SECRET_KEY"])
def test_a_weak_secret_stops_production_and_is_not_repeated(name: str) -> None:
    """Breaks: the default of an example protects the evidence of a company."""
    weak = "changeme" * 8
    with pytest.raises(Misuse) as error:
        load_settings({**GOOD, name: weak}, "api")
    assert name in error.value.message
    assert "changeme" not in str(error.value)
    load_settings({name: weak}, "api")


def test_one_secret_for_two_uses_is_refused() -> None:
    """Breaks: who learns the key of cursors has the master key of all recordings."""
    same = secrets.token_hex(32)
    assert wrong("api", ENCRYPTION_KEY=same, SECRET_KEY=same) == {"config.secret_key"}
