"""The rules of `LUCID_ENV=production`: servers elsewhere, and secrets that nobody guesses.

1. Every process needs NATS_URL. A service also needs MONGODB_URL and the secrets that it works with; a
   recorder's host and a person's command need none.
2. Public keys of an auth service come over https:// from another machine, or from a file.
3. No message repeats a secret or credentials.
"""

import base64
import binascii
import re
from collections.abc import Iterator, Mapping
from itertools import pairwise
from urllib.parse import urlsplit

from schemas.config.nats_url import addresses
from schemas.config.service_url import mongodb_hosts
from schemas.config.settings import Settings
from schemas.config.this_machine import is_this_machine
from schemas.errors import Misuse

COMMON, WORKS_WITH_KEYS = ("NATS_URL",), ("NATS_URL", "MONGODB_URL", "ENCRYPTION_KEY")
KNOWS_CALLERS = (*WORKS_WITH_KEYS, "JWT_SECRET_KEY", "SECRET_KEY")
NEEDS: Mapping[str, tuple[str, ...]] = {
    "": COMMON,
    "worker": WORKS_WITH_KEYS,
    "conductor": KNOWS_CALLERS,
    **dict.fromkeys(("recorder", "pipeline", "processor", "storage", "api", "http"), KNOWS_CALLERS),
}
"""The variables that a process must be given, by its role; "": it is no service."""
SECRETS = {"ENCRYPTION_KEY": "encryption_key", "JWT_SECRET_KEY": "jwt_secret", "SECRET_KEY": "secret_key"}
SECRET_LEAST, DIFFERENT_LEAST = 16, 8
"""Characters of a secret, and how many of them differ. Kinds of values may ask for more."""
KEY_BYTES = 32
GUESSED = (
    *("changeme", "changethis", "changeit", "replaceme", "password", "passw0rd", "passphrase", "placeholder"),
    *("insecure", "example", "default", "yoursecret", "yourkey", "secretkey", "encryptionkey", "supersecret"),
    *("development", "letmein", "qwerty", "12345678", "abcdefgh", "correcthorse", "lucidsession"),
)
"""Words of defaults and examples; without signs, in small letters."""
MAKE_ONE = "make one: openssl rand -base64 32"


def refusals(settings: Settings, role: str = "") -> Iterator[Misuse]:
    """Every setting that production refuses, in the order of NEEDS. Nothing, if this is not production."""
    if settings.environment != "production":
        return
    for name in NEEDS[role]:
        if name in SECRETS:
            yield from _secret(settings, name)
        else:
            yield from _server(settings, name)
    if "JWT_SECRET_KEY" in NEEDS[role]:
        yield from _auth_service(settings.jwt_jwks)
    yield from _shared(settings)


def weakness(secret: str) -> str:
    """Why a secret can be guessed; empty: no reason is known."""
    if len(secret) < SECRET_LEAST:
        return f"has {len(secret)} characters, and {SECRET_LEAST} are the least"
    plain = re.sub(r"[\W_]", "", secret).lower()
    if any(word in plain for word in GUESSED):
        return "is a default or an example"
    raw = _decoded(secret) or secret.encode()
    if len(set(raw)) < DIFFERENT_LEAST:
        return f"has {len(set(raw))} different characters, and {DIFFERENT_LEAST} are the least"
    if raw in (raw + raw)[1:-1]:
        return "repeats itself"
    if len({(after - before) % 256 for before, after in pairwise(raw)}) == 1:
        return "is a row of neighbours"
    return ""


def _server(settings: Settings, name: str) -> Iterator[Misuse]:
    url = {"NATS_URL": settings.nats_url, "MONGODB_URL": settings.mongodb_url}[name]
    what = {"NATS_URL": "a NATS cluster", "MONGODB_URL": "a MongoDB deployment"}[name]
    hosts: tuple[str, ...] = ()
    if url:
        hosts = mongodb_hosts(url) if name == "MONGODB_URL" else tuple(one.host for one in addresses(url))
    ours = next((host for host in hosts if is_this_machine(host)), None)
    if not url or ours is not None:
        why = "not set" if not url else f"on this machine ({ours or 'no host'})"
        yield Misuse(
            f"{name} is {why}; production wants the URL of {what} on other machines",
            code=f"config.{name.lower()}",
        )


def _secret(settings: Settings, name: str) -> Iterator[Misuse]:
    secret: str = getattr(settings, SECRETS[name])
    why = weakness(secret) if secret else "is not set"
    if name == "JWT_SECRET_KEY" and not secret and settings.jwt_jwks:
        return  # an auth service signs the tokens
    if why:
        yield Misuse(
            f"{name} {why}; production wants a secret of its own",
            code=f"config.{SECRETS[name]}",
            hint=MAKE_ONE,
        )


def _auth_service(jwks: str) -> Iterator[Misuse]:
    """Keys that a listener could replace, or that anybody on this machine could serve. A file is neither."""
    url = urlsplit(jwks)
    why = ""
    if url.scheme == "http":
        why = "plain http"
    elif url.scheme == "https" and is_this_machine(url.hostname or ""):
        why = f"on this machine ({url.hostname})"
    if why:
        yield Misuse(
            f"JWT_JWKS_URL is {why}; production wants https:// of an auth service elsewhere, or file:///",
            code="config.jwt_jwks",
        )


def _shared(settings: Settings) -> Iterator[Misuse]:
    """A secret with two uses: it must be learned only once."""
    names = [name for name, field in SECRETS.items() if getattr(settings, field)]
    for at, name in enumerate(names):
        same = [one for one in names[:at] if _of(settings, one) == _of(settings, name)]
        if same:
            yield Misuse(
                f"{name} and {same[0]} are the same secret; production wants two",
                code=f"config.{SECRETS[name]}",
                hint=MAKE_ONE,
            )


def _of(settings: Settings, name: str) -> str:
    return str(getattr(settings, SECRETS[name]))


def _decoded(secret: str) -> bytes:
    """The key that a text in base64 is; empty: it is none."""
    try:
        raw = base64.b64decode(secret, validate=True)
    except (binascii.Error, ValueError):
        return b""
    return raw if len(raw) == KEY_BYTES else b""
