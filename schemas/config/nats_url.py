"""Reads NATS_URL: where NATS is, and the credentials for it.

    nats://[user:password@|token@]host[:port]   plain text
    tls://…                                     TLS, or no connection at all
    several of them, with commas between

1. Credentials are %-encoded: a comma, slash, question mark, hash or percent sign in them must be.
2. A text that is no such URL is refused (BadUrl). The reason names no part of the credentials.
"""

import re
from typing import NamedTuple
from urllib.parse import unquote

PORT = 4222
SCHEMES = ("nats", "tls")
BEHIND = "something follows host and port (in credentials write / as %2F, ? as %3F, # as %23)"
_URL = re.compile(
    r"(?:(?P<scheme>[a-z][a-z0-9+.-]*)://)?(?:(?P<who>.*)@)?(?P<host>\[[0-9a-f:.%]+\]|[^\[\]:/?#@]*)(?::(?P<port>[^/?#@]*))?"
    r"(?P<rest>.*)",
    re.IGNORECASE | re.DOTALL,
)
_ESCAPE = re.compile(r"%(?![0-9a-f]{2})", re.IGNORECASE)


class BadUrl(ValueError):
    """Why a text is no URL of a NATS server. Names no credentials."""


class Address(NamedTuple):
    """One server. `host` without brackets; credentials decoded, empty where the URL has none."""

    scheme: str
    host: str
    port: int
    user: str = ""
    password: str = ""
    token: str = ""

    @property
    def place(self) -> str:
        """host:port, as it stands in a URL."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    @property
    def shown(self) -> str:
        """The URL without its credentials."""
        return f"{self.scheme}://{self.place}"


def addresses(urls: str) -> tuple[Address, ...]:
    """The servers that the text names, at least one. Raises BadUrl."""
    return tuple(_address(part.strip()) for part in urls.split(","))


def _address(url: str) -> Address:
    if not url:
        raise BadUrl("it is empty, or has a comma too many")
    if re.search(r"[\s\x00-\x1f\x7f]", url):
        raise BadUrl("it has a blank or a control character in it")
    found = _URL.fullmatch(url)
    assert found is not None  # the last group takes the remaining text
    scheme = (found["scheme"] or "").lower()
    if scheme in ("ws", "wss"):
        raise BadUrl(f"{scheme}:// is not supported: name the server's port for nats:// or tls://")
    if scheme not in SCHEMES:
        raise BadUrl(f"{scheme}:// is not known" if scheme else "it does not begin with nats:// or tls://")
    if found["rest"] not in ("", "/"):
        raise BadUrl(BEHIND)
    host = found["host"].strip("[]")
    if not host:
        raise BadUrl("it names no host")
    user, password, token = _credentials(found["who"])
    return Address(scheme, host, _port(found["port"]), user, password, token)


def _port(given: str | None) -> int:
    if given is None:
        return PORT
    if re.fullmatch(r"[0-9]{1,5}", given) is None or not 0 < int(given) < 1 << 16:
        raise BadUrl("its port is none of 1 to 65535 (in credentials write @ as %40, : as %3A)")
    return int(given)


def _credentials(given: str | None) -> tuple[str, str, str]:
    """User, password and token."""
    if given is None:
        return "", "", ""
    if re.search("[/?#]", given):  # other programs would take the text before it for the host
        raise BadUrl(BEHIND)
    if _ESCAPE.search(given):
        raise BadUrl("its credentials have a % that begins no %XX (write it as %25)")
    user, colon, password = given.partition(":")
    try:
        user, password = (unquote(part, errors="strict") for part in (user, password))
    except UnicodeDecodeError:
        raise BadUrl("its credentials are no UTF-8") from None
    if not user or (colon and not password):
        raise BadUrl("its credentials are incomplete (user:password@, or token@)")
    return (user, password, "") if colon else ("", "", user)
