"""The settings of access: keys of tokens, the token of a command, origins and rates of requests.

Base class of `schemas.config.settings.Settings`.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from schemas.config.values import Kind, duration, pattern, whole
from schemas.config.variable import setting
from schemas.events.access import LOOKS

SECRET_LEAST_BYTES = 32
"""RFC 7518 §3.2: a key of HS256 is no shorter than its digest."""
ORIGIN = re.compile(r"https?://[A-Za-z0-9.\[\]:-]{1,260}")
RATE_MOST = 10_000_000
NO_LOOK = "none"


def _secret(given: str) -> str:
    if len(given.encode()) < SECRET_LEAST_BYTES or given.startswith(("-----BEGIN", "ssh-", "ecdsa-")):
        raise ValueError  # a public key is no secret
    return given


def _jwks(given: str) -> str:
    url = urlsplit(given)
    if url.username or url.password or url.fragment or not given.isascii():
        raise ValueError
    if url.scheme == "file" and not url.netloc and url.path.startswith("/"):
        return given
    if url.scheme in ("http", "https") and url.hostname and (url.port is None or url.port > 0):
        return given
    raise ValueError


def _text(given: str) -> str:
    if not given or len(given) > 200 or not given.isprintable():
        raise ValueError
    return given


def _origins(given: str) -> tuple[str, ...]:
    origins = tuple(one.strip() for one in given.split(",") if one.strip())
    if any(ORIGIN.fullmatch(one) is None for one in origins):
        raise ValueError
    return origins


def _looks(given: str) -> tuple[str, ...]:
    words = tuple(word.strip().lower() for word in given.split(",") if word.strip())
    if words == (NO_LOOK,):
        return ()
    if not words or not set(words) <= set(LOOKS):
        raise ValueError
    return tuple(look for look in LOOKS if look in words)


def _path(given: str) -> Path:
    if not given or "\0" in given:
        raise ValueError
    return Path(given)


JWT_SECRET = Kind(_secret, f"{SECRET_LEAST_BYTES} bytes or more of random text: openssl rand -base64 48")
JWKS_URL = Kind(_jwks, "https:// or http:// with a host, or file:/// with a path; no credentials in it")
TEXT = Kind(_text, "1 to 200 printable characters")
ORIGINS = Kind(_origins, "origins such as https://lucid.example, several with commas", ",".join)
TOKEN = pattern(r"[\w-]+\.[\w-]+\.[\w-]+", "a token (JWT), as `lucid token` prints it")
LOOK_WORDS = Kind(
    _looks, f"none, or {' and '.join(LOOKS)} with commas", lambda words: ",".join(words) or NO_LOOK
)
TOKEN_FILE = Kind(_path, "a file")


@dataclass(frozen=True)
class AccessSettings:
    """Keys and claims of tokens, the own token, limits of requests, policy of looks."""

    jwt_secret: str = setting(
        "",
        "JWT_SECRET_KEY",
        JWT_SECRET,
        "secret of HS256 tokens; unset: one is made in the data folder, except in production",
        secret=True,
        in_repr=False,
    )
    jwt_jwks: str = setting(
        "",
        "JWT_JWKS_URL",
        JWKS_URL,
        "public keys (JWKS) of the auth service, for RS256, ES256 and EdDSA tokens; unset: HS256 only",
    )
    jwt_issuer: str = setting("", "JWT_ISSUER", TEXT, "the `iss` that tokens must have; unset: any")
    jwt_audience: str = setting("", "JWT_AUDIENCE", TEXT, "the `aud` that tokens must have; unset: any")
    jwt_leeway_s: float = setting(
        30, "JWT_LEEWAY", duration(0, 300), "how far the clock of the auth service may differ"
    )
    token: str = setting("", "LUCID_TOKEN", TOKEN, "the token that commands send", secret=True, in_repr=False)
    token_file: Path | None = setting(
        None,
        "LUCID_TOKEN_FILE",
        TOKEN_FILE,
        "file with the token that commands send; unset: admin.token in the data folder",
    )
    cors_origins: tuple[str, ...] = setting(
        (), "CORS_ORIGINS", ORIGINS, "web origins whose pages may call the API; unset: none"
    )
    rate_caller: int = setting(
        60_000, "RATE_LIMIT_CALLER", whole(0, RATE_MOST), "HTTP requests a minute of one caller; 0: no limit"
    )
    rate_address: int = setting(
        120_000,
        "RATE_LIMIT_ADDRESS",
        whole(0, RATE_MOST),
        "HTTP requests a minute of one address, also without a token; 0: no limit",
    )
    reason_for: tuple[str, ...] = setting(
        (),
        "ACCESS_REASON_REQUIRED",
        LOOK_WORDS,
        "looks at recordings that need a reason (X-Reason, --reason)",
    )
    approval_for: tuple[str, ...] = setting(
        (), "ACCESS_APPROVAL_REQUIRED", LOOK_WORDS, "looks at recordings that a second person must approve"
    )
    grant_life_s: float = setting(
        8 * 3600,
        "ACCESS_GRANT_LIFE",
        duration(60, 30 * 86_400),
        "how long a look that was approved is allowed",
    )
