"""Reads the URLs of servers other than NATS: of MongoDB, and of services over HTTP.

    mongodb://[user:password@]host[:port][,host[:port]…][/database][?options]
    mongodb+srv://[user:password@]host[/database][?options]
    http[s]://host[:port][/path]

1. A text that is no such URL is refused (BadUrl). The reason names no part of the credentials.
"""

import re
from urllib.parse import urlsplit

from schemas.config.nats_url import BadUrl

MONGODB_SCHEMES = ("mongodb", "mongodb+srv")
_MONGODB = re.compile(
    r"(?P<scheme>[a-z+]+)://(?:(?P<user>[^:/?#@,]+)(?::(?P<password>[^:/?#@,]*))?@)?(?P<hosts>[^/?#@]+)"
    r"(?:/(?P<database>[^/?#@\\ .\"$*<>:|]*))?(?:\?(?P<options>[^#?@]*))?",
    re.IGNORECASE,
)
_HOST = re.compile(r"(?P<host>\[[0-9a-f:.%]+\]|[^\[\]:,]+)(?::(?P<port>[0-9]{1,5}))?", re.IGNORECASE)
_UNSEEN = re.compile(r"[\s\x00-\x1f\x7f]")


def mongodb_hosts(url: str) -> tuple[str, ...]:
    """The hosts that the URL names, without ports and brackets; a socket is its path. Raises BadUrl."""
    _check_seen(url)
    found = _MONGODB.fullmatch(url)
    if found is None:
        raise BadUrl(
            "it is not mongodb://[user:password@]host[:port][,…][/database][?options] "
            "(in credentials write : as %3A, / as %2F, @ as %40)"
        )
    if found["scheme"].lower() not in MONGODB_SCHEMES:
        raise BadUrl("it begins with neither mongodb:// nor mongodb+srv://")
    hosts = tuple(_host(place) for place in found["hosts"].split(","))
    if found["scheme"].lower() == "mongodb+srv" and (len(hosts) > 1 or ":" in found["hosts"]):
        raise BadUrl("mongodb+srv:// takes one host and no port")
    return hosts


def check_url(url: str, schemes: tuple[str, ...]) -> str:
    """The URL, if it has one of these schemes and a host, or for unix:// a path. Raises BadUrl."""
    _check_seen(url)
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise BadUrl("its host or its port is none") from None
    if parts.scheme not in schemes:
        raise BadUrl(f"it begins with none of {', '.join(f'{scheme}://' for scheme in schemes)}")
    if port == 0:
        raise BadUrl("its port is none of 1 to 65535")
    if not (parts.path if parts.scheme == "unix" else parts.hostname):
        raise BadUrl("it names no host")
    return url


def check_http(url: str) -> str:
    """The URL of a service, without a slash at its end. Raises BadUrl."""
    check_url(url, ("http", "https"))
    parts = urlsplit(url)
    if "@" in parts.netloc:
        raise BadUrl("it holds credentials, which have a variable of their own (*_API_KEY)")
    if parts.query or parts.fragment or url.endswith(("?", "#")):
        raise BadUrl("something follows its path")
    return url.rstrip("/")


def _host(place: str) -> str:
    if place.lower().startswith("%2f"):  # a socket of this machine
        return "/" + place[3:]
    found = _HOST.fullmatch(place)
    if found is None or (found["port"] is not None and not 0 < int(found["port"]) < 1 << 16):
        raise BadUrl("one of its hosts is not host or host:port")
    return found["host"].strip("[]")


def _check_seen(url: str) -> None:
    if _UNSEEN.search(url):
        raise BadUrl("it has a blank or a control character in it")
