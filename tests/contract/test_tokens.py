"""Which tokens count: the port Tokens, against a real auth service over HTTP."""

import base64
import json
import os
import stat
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from infra.access import tokens as tokens_module
from infra.access.host_tokens import HostToken, verified_host
from infra.access.issuer import JwtIssuer
from infra.access.jwks import LEAST_S, KeySet, usable_keys
from infra.access.secret import NAME, TokenSecret
from infra.access.tokens import JwtTokens
from infra.access.wanted_claims import Wanted
from schemas.access import Role, request_digest
from schemas.config.settings import Settings
from schemas.errors import Denied, Misuse, Unauthenticated, Unavailable
from streams.roles.drivers import Installation
from tests.support.servers.auth_service import AuthService, auth_service, new_key, public_jwk, signed

SECRET = "a kilimanjaro secret of this test, and of nothing else: 4f1d9a"
ASYMMETRIC = ("RS256", "ES256", "EdDSA")


class Clock:
    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def by_secret(tmp_path: Path, **wanted: Any) -> JwtTokens:
    return JwtTokens(TokenSecret(SECRET, tmp_path, may_make=False), None, Wanted(**wanted))


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[AuthService]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with auth_service() as one:
        yield one


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def tokens(service: AuthService, clock: Clock, tmp_path: Path) -> JwtTokens:
    return JwtTokens(TokenSecret(SECRET, tmp_path, may_make=False), KeySet(service.url, clock), Wanted())


async def refused(tokens: JwtTokens, token: str) -> str:
    """The code of the refusal, which repeats nothing of the token."""
    with pytest.raises(Unauthenticated) as error:
        await tokens.caller(token)
    said = f"{error.value.message} {error.value.hint} {error.value.place} {error.value.__cause__}"
    assert not any(part in said for part in token.split(".") if len(part) > 6)
    return error.value.code


async def test_a_token_of_our_secret_names_its_caller(tmp_path: Path) -> None:
    """Breaks: nobody can ask for anything."""
    tokens = by_secret(tmp_path)
    caller = await tokens.caller(signed(SECRET, "HS256", roles=["ADMIN", "USER", "KING", "HOST", 3]), "::1")
    assert (caller.subject, caller.roles, caller.address) == ("alice", {Role.ADMIN, Role.USER}, "::1")
    assert (await tokens.caller(signed(SECRET, "HS256", roles=None, role="AUDITOR"))).roles == {Role.AUDITOR}
    assert (await tokens.caller(signed(SECRET, "HS256", roles="NODE_OPERATOR"))).roles == {Role.NODE_OPERATOR}
    for roles in (None, [], "admin", {"ADMIN": 1}, [["ADMIN"]], "HOST"):
        assert (await tokens.caller(signed(SECRET, "HS256", roles=roles))).roles == frozenset()


async def test_a_caller_is_known_until_its_token_ends(tmp_path: Path) -> None:
    """Breaks: a stream of live events goes on after the token that opened it has expired."""
    end_s = now_s() + 600
    caller = await by_secret(tmp_path, leeway_s=7).caller(signed(SECRET, "HS256", exp=end_s), "::1")
    assert caller.until_s == end_s + 7


def part(value: Any) -> str:
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def now_s() -> int:
    """A token is made when its test runs: tests wait for each other, and tokens do not."""
    return int(time.time())


CLAIMS = {"sub": "alice", "role": "ADMIN", "exp": now_s() + 36_000}


def bad_tokens() -> dict[str, tuple[str, str]]:
    """Tokens that do not count, by kind, each with the code of its refusal."""
    return {
        "unsigned": (f"{part({'alg': 'none'})}.{part(CLAIMS)}.", "access.token"),
        "unsigned, in capitals": (f"{part({'alg': 'nOnE'})}.{part(CLAIMS)}.", "access.token"),
        "without an algorithm": (f"{part({'typ': 'JWT'})}.{part(CLAIMS)}.{part(b'x' * 32)}", "access.token"),
        "an algorithm that is no text": (f"{part({'alg': ['HS256']})}.{part(CLAIMS)}.AAAA", "access.token"),
        "of another secret": (signed("another secret, quite as long as the right", "HS256"), "access.token"),
        "of another digest": (signed(SECRET * 2, "HS512"), "access.token"),
        "expired": (signed(SECRET, "HS256", exp=now_s() - 31), "access.expired"),
        "not valid yet": (signed(SECRET, "HS256", nbf=now_s() + 900), "access.early"),
        "of the future": (signed(SECRET, "HS256", iat=now_s() + 900), "access.early"),
        "without an end": (signed(SECRET, "HS256", exp=None), "access.claims"),
        "without a subject": (signed(SECRET, "HS256", sub=None), "access.claims"),
        "of an empty subject": (signed(SECRET, "HS256", sub=""), "access.claims"),
        "of a subject with a line break": (signed(SECRET, "HS256", sub="a\nb"), "access.claims"),
        "of a long subject": (signed(SECRET, "HS256", sub="a" * 201), "access.claims"),
        "of a number": (jwt.encode({**CLAIMS, "sub": 7}, SECRET), "access.token"),
        "an end that is no number": (signed(SECRET, "HS256", exp=[1]), "access.token"),
        "an end beyond all numbers": (
            jwt.api_jws.encode(b'{"sub":"a","exp":1e999}', SECRET, "HS256"),
            "access.token",
        ),
        "no object": (jwt.api_jws.encode(b"[1]", SECRET, "HS256"), "access.token"),
        "a deep one": (jwt.api_jws.encode(b"[" * 3000, SECRET, "HS256"), "access.token"),
        "unknown critical extension": (
            signed(SECRET, "HS256", headers={"crit": ["x"], "x": 1}),
            "access.token",
        ),
        "two parts": ("e30.e30", "access.token"),
        "no token": ("nothing of the kind", "access.token"),
        "letters of no token": ("ä.ö.ü", "access.token"),
        "a surrogate": ("\ud800.a.b", "access.token"),
        "too long": ("e30." + "A" * 9000 + ".AAAA", "access.token"),
        "none": ("", "access.missing"),
    }


@pytest.mark.parametrize("kind", bad_tokens())
async def test_a_token_that_does_not_count_is_refused_and_not_repeated(tmp_path: Path, kind: str) -> None:
    """Breaks: a stranger is let in, or a log holds a token that somebody can use."""
    token, code = bad_tokens()[kind]
    assert await refused(by_secret(tmp_path), token) == code


async def test_the_clock_of_the_auth_service_may_differ_a_little(tmp_path: Path) -> None:
    """Breaks: half a minute between two clocks locks everybody out."""
    late = signed(SECRET, "HS256", exp=int(time.time()) - 10, nbf=int(time.time()) + 10)
    assert (await by_secret(tmp_path).caller(late)).subject == "alice"
    assert (
        await refused(by_secret(tmp_path, leeway_s=0), signed(SECRET, "HS256", exp=now_s() - 1))
        == "access.expired"
    )


async def test_issuer_and_audience_count_where_they_are_set(tmp_path: Path) -> None:
    """Breaks: a token for another service of the same auth service opens this one."""
    right = signed(SECRET, "HS256", iss="https://auth", aud=["lucid", "other"])
    strict, free = by_secret(tmp_path, issuer="https://auth", audience="lucid"), by_secret(tmp_path)
    assert (await strict.caller(right)).subject == (await free.caller(right)).subject == "alice"
    for claims in ({"aud": "lucid"}, {"iss": "https://auth"}, {"iss": "https://auth", "aud": "other"},
                   {"iss": "evil", "aud": "lucid"}):  # fmt: skip
        assert await refused(strict, signed(SECRET, "HS256", **claims)) == "access.claims"


@pytest.mark.parametrize("algorithm", [*ASYMMETRIC, "PS256"])
async def test_tokens_of_the_auth_service_count(
    service: AuthService, tokens: JwtTokens, algorithm: str
) -> None:
    """Breaks: nobody can work with the accounts of the house."""
    key = new_key(algorithm)
    service.publish(public_jwk(key, algorithm, "k1", use="sig"))
    for kid in ("k1", ""):
        assert (await tokens.caller(signed(key, algorithm, kid))).roles == {Role.AUDITOR}
    assert service.asked == 1
    assert await refused(tokens, signed(new_key(algorithm), algorithm, "k1")) == "access.token"
    assert await refused(tokens, signed(key, algorithm, "k1", exp=now_s() - 99)) == "access.expired"
    await tokens.close()


@pytest.mark.parametrize("algorithm", ASYMMETRIC)
async def test_a_public_key_is_no_secret(service: AuthService, tokens: JwtTokens, algorithm: str) -> None:
    """Breaks: everybody who reads the public keys is an administrator (algorithm confusion)."""
    key = new_key(algorithm)
    jwk = public_jwk(key, algorithm, "k1")
    service.publish(jwk)
    public = key.public_key()
    shapes = [public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
              public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
              json.dumps(jwk).encode(), jwk.get("x", jwk.get("n", "")).encode()]  # fmt: skip
    hs = jwt.algorithms.HMACAlgorithm(jwt.algorithms.HMACAlgorithm.SHA256)
    for shape in shapes:
        for header in ({"alg": "HS256", "kid": "k1"}, {"alg": algorithm, "kid": "k1"}):
            text = f"{part(header)}.{part(CLAIMS)}"
            assert await refused(tokens, f"{text}.{part(hs.sign(text.encode(), shape))}") == "access.token"
    await tokens.close()


async def test_only_public_keys_for_signatures_are_taken(service: AuthService, tokens: JwtTokens) -> None:
    """Breaks: a set with a symmetric, weak or leaked key makes everybody an administrator."""
    strong, weak, leaked = new_key("RS256"), new_key("RS256", 1024), new_key("EdDSA")
    secret = b"s" * 32
    private = jwt.algorithms.OKPAlgorithm.to_jwk(leaked, as_dict=True)
    bad = [
        {"kty": "oct", "k": part(secret), "kid": "oct", "alg": "HS256"},
        public_jwk(weak, "RS256", "weak"),
        {**private, "kid": "leaked"},
        public_jwk(new_key("RS256"), "RS256", "enc", use="enc"),
        public_jwk(new_key("ES256"), "ES256", "other", alg="RS256"),
        public_jwk(new_key("EdDSA"), "EdDSA", "ops", key_ops=["encrypt"]),
        {"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA", "kid": "point"},
        {"kty": "OKP", "crv": "X25519", "x": part(b"x" * 32), "kid": "x25519"},
        {"kty": "RSA", "kid": "half"},
        {"kty": ["RSA"]},
        "nothing",
        None,
    ]
    assert usable_keys(json.dumps({"keys": bad}).encode()) == {}
    service.publish(*bad, public_jwk(strong, "RS256", "k1"))  # type: ignore[arg-type]
    assert await refused(tokens, signed(secret, "HS256", "oct")) == "access.token"
    assert await refused(tokens, signed(weak, "RS256", "weak")) == "access.token"
    assert await refused(tokens, signed(leaked, "EdDSA", "leaked")) == "access.token"
    assert (await tokens.caller(signed(strong, "RS256", "k1"))).subject == "alice"
    await tokens.close()


async def test_a_new_key_counts_at_once_and_a_withdrawn_one_no_more(
    service: AuthService, tokens: JwtTokens, clock: Clock
) -> None:
    """Breaks: a rotation locks everybody out, or a stolen key counts until the process ends."""
    old, new = new_key("ES256"), new_key("ES256")
    service.publish(public_jwk(old, "ES256", "old"))
    token = signed(old, "ES256", "old")
    assert (await tokens.caller(token)).subject == "alice"
    service.publish(public_jwk(new, "ES256", "new"))
    clock.now_s += LEAST_S
    assert (await tokens.caller(token)).subject == "alice"  # it is not known yet
    assert (await tokens.caller(signed(new, "ES256", "new"))).subject == "alice"
    assert await refused(tokens, token) == "access.token"
    assert service.asked == 2
    await tokens.close()


async def test_unknown_keys_of_strangers_cost_the_auth_service_nothing(
    service: AuthService, tokens: JwtTokens, clock: Clock
) -> None:
    """Breaks: a stranger without any token makes this process attack the auth service."""
    key, other = new_key("EdDSA"), new_key("EdDSA")
    service.publish(public_jwk(key, "EdDSA", "k1"))
    for number in range(200):
        assert await refused(tokens, signed(other, "EdDSA", f"x{number}")) == "access.token"
    assert service.asked == 1
    clock.now_s += LEAST_S
    await refused(tokens, signed(other, "EdDSA", "y"))
    assert service.asked == 2
    await tokens.close()


async def test_the_last_keys_count_while_the_auth_service_is_down(
    service: AuthService, tokens: JwtTokens, clock: Clock
) -> None:
    """Breaks: an outage of the auth service ends all work here."""
    key = new_key("EdDSA")
    service.publish(public_jwk(key, "EdDSA", "k1"))
    assert (await tokens.caller(signed(key, "EdDSA", "k1"))).subject == "alice"
    for status, body in ((503, b""), (200, b"{"), (200, b'{"keys": []}'), (200, b" " * (300 << 10))):
        service.status, service.body = status, body
        clock.now_s += 10_000
        assert await refused(tokens, signed(key, "EdDSA", "k2")) == "access.token"
        assert (await tokens.caller(signed(key, "EdDSA", "k1", jti=os.urandom(4).hex()))).subject == "alice"
    assert service.asked == 5
    await tokens.close()


async def test_without_any_keys_yet_the_answer_is_an_outage(
    service: AuthService, tokens: JwtTokens, clock: Clock
) -> None:
    """Breaks: a client throws its good token away, since the auth service started a second later."""
    key = new_key("EdDSA")
    service.status = 500
    for _ in range(5):
        with pytest.raises(Unavailable) as error:
            await tokens.caller(signed(key, "EdDSA", "k1"))
        assert error.value.code == "access.keys"
    assert service.asked == 1
    service.status = 200
    service.publish(public_jwk(key, "EdDSA", "k1"))
    clock.now_s += LEAST_S
    assert (await tokens.caller(signed(key, "EdDSA", "k1"))).subject == "alice"
    await tokens.close()


async def test_another_address_gives_no_keys(service: AuthService, tokens: JwtTokens) -> None:
    """Breaks: a redirect of a compromised page makes another server the auth service."""
    with auth_service() as other:
        key = new_key("EdDSA")
        other.publish(public_jwk(key, "EdDSA", "k1"))
        service.status, service.location = 302, other.url
        with pytest.raises(Unavailable):
            await tokens.caller(signed(key, "EdDSA", "k1"))
        assert other.asked == 0
    await tokens.close()


async def test_keys_may_be_in_a_file(tmp_path: Path) -> None:
    """Breaks: a machine without a network can use no accounts."""
    key, path = new_key("ES256"), tmp_path / "the keys.json"
    path.write_text(json.dumps({"keys": [public_jwk(key, "ES256", "k1")]}))
    tokens = Installation(Settings(data=tmp_path, environment="production", jwt_jwks=path.as_uri())).tokens
    assert (await tokens.caller(signed(key, "ES256", "k1"))).subject == "alice"
    with pytest.raises(Unauthenticated):  # in production no secret is made
        await tokens.caller(signed(SECRET, "HS256"))
    assert os.listdir(tmp_path) == [path.name]


def test_a_secret_is_made_once_and_is_for_its_owner_alone(tmp_path: Path) -> None:
    """Breaks: another user of the machine makes tokens, or a restart ends all of them."""
    first = TokenSecret("", tmp_path / "data", may_make=True).value
    assert TokenSecret("", tmp_path / "data", may_make=True).value == first
    path = tmp_path / "data" / NAME
    assert (stat.S_IMODE(path.stat().st_mode), len(first)) == (0o600, 32)
    assert [one.name for one in path.parent.iterdir()] == [NAME]
    path.write_text("short")
    with pytest.raises(Unavailable) as damaged:
        _ = TokenSecret("", tmp_path / "data", may_make=True).value
    assert damaged.value.code == "access.secret"


def test_production_makes_no_secret(tmp_path: Path) -> None:
    """Breaks: a machine in production accepts tokens that nobody has decided on."""
    with pytest.raises(Misuse) as unset:
        _ = Installation(Settings(data=tmp_path, environment="production")).tokens
    assert "JWT_SECRET_KEY" in unset.value.message
    assert [*tmp_path.iterdir()] == []


async def test_tokens_made_here_count_here(tmp_path: Path) -> None:
    """Breaks: `lucid up` writes a token that opens nothing."""
    here = Installation(Settings(data=tmp_path, jwt_issuer="https://lucid", jwt_audience="lucid"))
    assert here.credential() == ""
    path = here.issuer.renew_admin()
    assert path == here.issuer.admin_file == tmp_path / "admin.token"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    first = here.credential()
    assert (await here.tokens.caller(first)).roles == {Role.SUPER_ADMIN}
    here.issuer.renew_admin()
    assert here.credential() != first
    assert {*os.listdir(tmp_path)} == {"admin.token", NAME}


def test_with_an_auth_service_production_makes_no_tokens(tmp_path: Path) -> None:
    """Breaks: a person passes by the accounts of the house."""
    wanted, secret = Wanted(), TokenSecret(SECRET, tmp_path, may_make=False)
    issuer = JwtIssuer(secret, tmp_path, wanted, allowed=False)
    assert issuer.admin_file is issuer.renew_admin() is None
    with pytest.raises(Denied) as denied:
        issuer.issue("alice", (Role.ADMIN,), 60)
    assert denied.value.code == "access.issuer"
    production = Settings(data=tmp_path, environment="production", jwt_secret=SECRET)
    assert Installation(production).issuer.admin_file is not None
    with_service = replace(production, jwt_jwks="https://auth.example/keys")
    assert Installation(with_service).issuer.admin_file is None


def test_the_token_of_a_process_comes_from_one_place(tmp_path: Path) -> None:
    """Breaks: a command is sent with another identity than the person believes."""
    (tmp_path / "admin.token").write_text("of-the-folder\n")
    (tmp_path / "mine").write_text("  mine\n")
    settings = Settings(data=tmp_path)
    assert Installation(settings).credential() == "of-the-folder"
    assert Installation(replace(settings, token_file=tmp_path / "mine")).credential() == "mine"
    assert (
        Installation(replace(settings, token_file=tmp_path / "mine", token="given")).credential() == "given"
    )
    with pytest.raises(Exception, match="absent"):
        Installation(replace(settings, token_file=tmp_path / "absent")).credential()


HOST_KEY = Ed25519PrivateKey.generate()
PUBLIC = HOST_KEY.public_key().public_bytes_raw()
ASKED = {"session": "demo-01", "cause": "c1"}
REQUEST = request_digest("pause", ASKED)


def host_claims(**more: Any) -> str:
    bound = {"req": REQUEST.hex()}
    claims = {"sub": "host:rdp-01", "aud": "lucid.cmd", "iat": now_s(), "exp": now_s() + 60, **bound, **more}
    headers = jwt.get_unverified_header(HostToken("rdp-01", HOST_KEY)())
    return signed(HOST_KEY, "EdDSA", headers=headers, roles=None, **claims)


def test_a_host_is_known_by_its_evidence_key(tmp_path: Path) -> None:
    """Breaks: a host cannot record without an account of its own."""
    tokens, token = by_secret(tmp_path), HostToken("rdp-01", HOST_KEY)
    assert tokens.host_of(token()) == "rdp-01"
    for _ in range(2):
        caller = tokens.host(token("pause", ASKED), PUBLIC, REQUEST, "10.0.0.1")
        assert (caller.host, caller.label, caller.roles, caller.address) == (
            *("rdp-01", "rdp-01", {Role.HOST}, "10.0.0.1"),
        )
    assert verified_host(host_claims(), "rdp-01", PUBLIC, REQUEST).host == "rdp-01"


@pytest.mark.parametrize("name", ["pause", "stop"])
@pytest.mark.parametrize("more", [{}, {"cause": "c2"}, {"session": "demo-02"}, {"n": 1.5}, {"n": None}])
def test_a_token_of_a_host_is_for_one_request(tmp_path: Path, name: str, more: dict[str, Any]) -> None:
    """Breaks: an overheard token of a host serves for every command of the host."""
    token = HostToken("rdp-01", HOST_KEY)("pause", ASKED)
    request = request_digest(name, {**ASKED, **more, "token": token})
    if name == "pause" and not more:
        assert by_secret(tmp_path).host(token, PUBLIC, request).host == "rdp-01"
        return
    with pytest.raises(Unauthenticated) as error:
        by_secret(tmp_path).host(token, PUBLIC, request)
    assert error.value.code == "access.request"


@pytest.mark.parametrize(
    ("claims", "code"),
    [
        ({"iat": now_s() - 900, "exp": now_s() - 840}, "access.expired"),
        ({"iat": now_s() + 36_000, "exp": now_s() + 36_060}, "access.early"),
        ({"exp": now_s() + 36_000}, "access.claims"),
        ({"iat": None}, "access.claims"),
        ({"exp": None}, "access.claims"),
        ({"aud": "another"}, "access.claims"),
        ({"sub": "host:rdp-02"}, "access.claims"),
        ({"iat": "soon"}, "access.early"),
        ({"req": None}, "access.claims"),
        ({"req": REQUEST.hex().upper()}, "access.request"),
        ({"req": 7}, "access.request"),
    ],
)
def test_a_token_of_a_host_that_does_not_count_is_refused(claims: dict[str, Any], code: str) -> None:
    """Breaks: an overheard token of a host serves for ever, or for another host."""
    with pytest.raises(Unauthenticated) as error:
        verified_host(host_claims(**claims), "rdp-01", PUBLIC, REQUEST)
    assert error.value.code == code or claims == {"iat": "soon"}


def test_another_key_is_another_host(tmp_path: Path) -> None:
    """Breaks: any host speaks for every other."""
    other = Ed25519PrivateKey.generate()
    tokens = by_secret(tmp_path)
    with pytest.raises(Unauthenticated) as error:
        tokens.host(HostToken("rdp-01", other)("pause", ASKED), PUBLIC, REQUEST)
    assert error.value.code == "access.host_key"
    header, claims, _ = HostToken("rdp-01", HOST_KEY)("pause", ASKED).split(".")
    forged = f"{header}.{claims}.{part(other.sign(f'{header}.{claims}'.encode()))}"
    with pytest.raises(Unauthenticated) as error:
        tokens.host(forged, PUBLIC, REQUEST)
    assert error.value.code == "access.token"


async def test_an_auth_service_makes_no_hosts_and_a_host_no_persons(
    service: AuthService, tokens: JwtTokens
) -> None:
    """Breaks: a key of one kind stands for an identity of the other."""
    service.publish(public_jwk(HOST_KEY, "EdDSA", "k1"))
    person = signed(HOST_KEY, "EdDSA", "k1", sub="host:rdp-01", roles=["HOST"])
    assert tokens.host_of(person) == ""
    found = await tokens.caller(person)
    assert (found.host, found.roles) == ("", frozenset())
    assert found.label != "rdp-01"
    with pytest.raises(Unauthenticated):
        tokens.host(person, PUBLIC, REQUEST)
    assert await refused(tokens, HostToken("rdp-01", Ed25519PrivateKey.generate())()) == "access.token"
    await tokens.close()


@pytest.mark.parametrize("token", [token for token, _ in bad_tokens().values()], ids=bad_tokens())
def test_no_token_makes_the_look_for_its_host_fail(tmp_path: Path, token: str) -> None:
    """Breaks: one request ends the command service."""
    assert by_secret(tmp_path).host_of(token) == ""


async def test_verified_tokens_are_remembered_within_bounds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks: a caller with many tokens takes all memory, or an expired token goes on to count."""
    monkeypatch.setattr(tokens_module, "REMEMBERED_MOST", 3)
    tokens = by_secret(tmp_path, leeway_s=0)
    many = [signed(SECRET, "HS256", jti=str(number)) for number in range(9)]
    for token in [*many, *many]:
        assert (await tokens.caller(token)).subject == "alice"
    assert len(tokens._remembered) == 3
    ends = signed(SECRET, "HS256", exp=int(time.time()) + 100)
    assert (await tokens.caller(ends)).subject == "alice"
    now_s = time.time()
    monkeypatch.setattr(tokens_module.time, "time", lambda: now_s + 101)
    assert tokens._recall(next(reversed(tokens._remembered))) is None


def test_a_short_or_public_secret_is_refused() -> None:
    """Breaks: tokens can be made by a person who guesses, or who reads a public key."""
    from infra.config.load import load_settings

    for given in ("short", "x" * 31, "-----BEGIN PUBLIC KEY-----" + "x" * 40, "ssh-ed25519 " + "A" * 60):
        with pytest.raises(Misuse) as error:
            load_settings({"JWT_SECRET_KEY": given})
        assert given not in error.value.message
    for given in (
        "auth.example",
        "ftp://x/y",
        "file:keys.json",
        "https://u:p@h/k",
        "https://",
        "http://h:0/",
    ):
        with pytest.raises(Misuse):
            load_settings({"JWT_JWKS_URL": given})
