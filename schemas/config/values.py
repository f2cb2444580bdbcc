"""How a setting is written as text: one `Kind` for each sort of value, with its parser and its inverse.

1. A parser returns a value or raises ValueError; it never repeats the given text.
2. `write` makes the text that `parse` reads.
"""

import base64
import binascii
import ipaddress
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from schemas.config.nats_url import addresses
from schemas.config.service_url import check_http, check_url, mongodb_hosts

MIB = 1 << 20
BYTES_OF = {"": 1, "b": 1, "kb": 10**3, "kib": 1 << 10, "mb": 10**6, "mib": MIB}
UNITS_S = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}
KEY_BYTES, PASSPHRASE_LEAST, SIGNING_KEY_LEAST = 32, 12, 32
"""Bytes of a key; the least characters of a passphrase and of a key that signs tokens or cursors (HS256)."""
DURATION = re.compile(r"(\d{1,9}(?:\.\d{1,6})?)\s*([smhd]?)")
YES, NO = ("true", "1", "yes", "on"), ("false", "0", "no", "off")


class Kind(NamedTuple):
    """One sort of value. `allowed` completes "allowed: …" in a message."""

    parse: Callable[[str], Any]
    allowed: str
    write: Callable[[Any], str] = str


def whole(low: int, high: int) -> Kind:
    """A whole number from `low` to `high`."""

    def parse(given: str) -> int:
        if re.fullmatch(r"[+-]?\d{1,18}", given) is None:
            raise ValueError
        return int(_within(int(given), low, high))

    return Kind(parse, f"{low} to {high}")


def mebibytes(low: float, high: float) -> Kind:
    """A number of MiB, fractions allowed; the value is bytes."""

    def parse(given: str) -> int:
        if re.fullmatch(r"\d{1,10}(\.\d{1,6})?", given) is None:
            raise ValueError
        return int(_within(float(given), low, high) * MIB)

    return Kind(parse, f"{low} to {high} MiB", in_mebibytes)


def byte_count(low: int, high: int) -> Kind:
    """A number of bytes, or one with a unit: `16777216`, `16MiB`, `10 MB`; the value is bytes."""

    def parse(given: str) -> int:
        found = re.fullmatch(r"(\d{1,12})\s*([kKmM]?i?[bB]?)", given)
        if found is None or found[2].lower() not in BYTES_OF:
            raise ValueError
        return int(_within(int(found[1]) * BYTES_OF[found[2].lower()], low, high))

    return Kind(parse, f"{low} to {high} bytes, such as {high}, {high // MIB}MiB, 10MB")


def duration(low_s: float, high_s: float) -> Kind:
    """`30`, `30s`, `5m`, `2h` or `7d`; the value is seconds."""
    allowed = f"{in_seconds(low_s)} to {in_seconds(high_s)}, such as 30, 30s, 5m, 2h, 7d"
    return Kind(lambda given: _within(seconds(given), low_s, high_s), allowed, in_seconds)


def whole_seconds(low_s: int, high_s: int) -> Kind:
    """A duration that is a whole number of seconds."""

    def parse(given: str) -> int:
        value = _within(seconds(given), low_s, high_s)
        if value != int(value):
            raise ValueError
        return int(value)

    return Kind(parse, f"{low_s} to {high_s} whole seconds, such as 60, 60s, 5m", in_seconds)


def one_of(*numbers: int) -> Kind:
    """One of a few whole numbers."""
    listed = {str(number): number for number in numbers}

    def parse(given: str) -> int:
        if given not in listed:
            raise ValueError
        return listed[given]

    return Kind(parse, ", ".join(listed))


def choice(*words: str) -> Kind:
    """One of a few words, in any case; the value is the word as it is listed."""
    listed = {word.lower(): word for word in words}

    def parse(given: str) -> str:
        if given.lower() not in listed:
            raise ValueError
        return listed[given.lower()]

    return Kind(parse, ", ".join(words))


def pattern(form: str, allowed: str) -> Kind:
    """A text that matches a regular expression."""

    def parse(given: str) -> str:
        if re.fullmatch(form, given) is None:
            raise ValueError
        return given

    return Kind(parse, allowed)


def url(*schemes: str) -> Kind:
    """A URL with one of these schemes. Its parser raises BadUrl."""
    allowed = f"{' or '.join(f'{scheme}://' for scheme in schemes)}, host, and what that server takes"
    return Kind(lambda given: check_url(given, schemes), allowed, without_credentials)


def seconds(given: str) -> float:
    """Return a duration in seconds, or raise ValueError."""
    found = DURATION.fullmatch(given.lower())
    if found is None:
        raise ValueError
    return float(found[1]) * UNITS_S[found[2]]


def in_seconds(span_s: float) -> str:
    """The text of a duration, in the largest unit that makes it whole."""
    for unit, one_s in reversed(UNITS_S.items()):
        if span_s and span_s % one_s == 0:
            return f"{span_s / one_s:.0f}{unit}"
    return f"{span_s:g}"


def in_mebibytes(count: int) -> str:
    """The text of a number of bytes. No setting allows 0, so 0 stands for unset."""
    return f"{count / MIB:g}" if count else ""


def size_text(size_bytes: int) -> str:
    """A size for people: 3.1 MB, 812 kB, 96 B."""
    for unit, one in (("GB", 10**9), ("MB", 10**6)):
        if size_bytes >= one:
            return f"{size_bytes / one:.1f} {unit}"
    return f"{size_bytes // 1000} kB" if size_bytes >= 1000 else f"{size_bytes} B"


def without_credentials(urls: str) -> str:
    """URLs as they may be shown: without the part of each that stands before its @."""
    return ",".join(re.sub(r"^(.*://)?.*@", r"\1", url) for url in urls.split(","))


def is_key(given: str) -> bool:
    """Whether the text is 32 bytes in base64."""
    try:
        return len(base64.b64decode(given, validate=True)) == KEY_BYTES
    except (binascii.Error, ValueError):
        return False


def _master_key(given: str) -> str:
    if not is_key(given) and len(given) < PASSPHRASE_LEAST:
        raise ValueError
    return given


def _signing_key(given: str) -> str:
    if len(given) < SIGNING_KEY_LEAST:
        raise ValueError
    return given


def _mongodb_url(given: str) -> str:
    mongodb_hosts(given)
    return given


def _without_options(url: str) -> str:
    return without_credentials(url.partition("?")[0])  # an option may be a password, too


def _ip_address(given: str) -> str:
    return str(ipaddress.ip_address(given.strip("[]")))


def _path(given: str) -> Path:
    if not given or "\0" in given:
        raise ValueError
    return Path(given)


def _nats_urls(given: str) -> str:
    addresses(given)
    return given


def _yes_or_no(given: str) -> bool:
    if given.lower() not in (*YES, *NO):
        raise ValueError
    return given.lower() in YES


def _within(value: float, low: float, high: float) -> float:
    if not low <= value <= high:
        raise ValueError
    return value


FOLDER = Kind(_path, "a folder")
NATS_URLS = Kind(
    _nats_urls,
    "nats:// or tls://, user:password@ or token@ (%-encoded), host:port; several with commas",
    without_credentials,
)
"""The value is the text. Its parser raises BadUrl, whose reason names no credentials."""
MONGODB_URL = Kind(
    _mongodb_url,
    "mongodb:// or mongodb+srv://, user:password@ (%-encoded), host:port (several with commas), "
    "/database, ?options",
    _without_options,
)
HTTP_URL = Kind(check_http, "http:// or https://, host:port, /path; no credentials")
HOST_NAME = pattern(
    r"[A-Za-z0-9]([A-Za-z0-9._-]{0,252}[A-Za-z0-9])?|[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*",
    "a host name or an IP address",
)
IP_ADDRESS = Kind(_ip_address, "an IP address of this machine, 0.0.0.0, or ::")
FILE = Kind(_path, "a file")
SECRET = Kind(_master_key, f"32 bytes as base64, or a passphrase of {PASSPHRASE_LEAST} characters or more")
SIGNING_KEY = Kind(_signing_key, f"{SIGNING_KEY_LEAST} characters or more, by chance: openssl rand -hex 32")
API_KEY = pattern(r"[!-~]{1,4096}", "1 to 4096 characters of ASCII, no blank")
YES_OR_NO = Kind(_yes_or_no, "true, false, 1, 0, yes, no", lambda value: "true" if value else "false")
