"""Owns how a setting is written as text: parsers (they return a value or raise ValueError) and inverses."""

import re
from collections.abc import Callable
from pathlib import Path

from schemas.config.nats_url import addresses

MIB = 1 << 20
_UNITS_S = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}
_DURATION = re.compile(r"(\d{1,9}(?:\.\d{1,6})?)\s*([smhd]?)")


def whole(low: int, high: int) -> Callable[[str], int]:
    """A whole number from `low` to `high`."""

    def parse(given: str) -> int:
        if re.fullmatch(r"[+-]?\d{1,18}", given) is None:
            raise ValueError(given)
        return int(_within(int(given), low, high))

    return parse


def mebibytes(low: float, high: float) -> Callable[[str], int]:
    """A number of MiB, fractions allowed, as bytes."""

    def parse(given: str) -> int:
        if re.fullmatch(r"\d{1,10}(\.\d{1,6})?", given) is None:
            raise ValueError(given)
        return int(_within(float(given), low, high) * MIB)

    return parse


def seconds(low: float, high: float) -> Callable[[str], float]:
    """A duration as seconds: `30`, `30s`, `5m`, `2h`, `7d`."""

    def parse(given: str) -> float:
        found = _DURATION.fullmatch(given.lower())
        if found is None:
            raise ValueError(given)
        return _within(float(found[1]) * _UNITS_S[found[2]], low, high)

    return parse


def whole_seconds(low: int, high: int) -> Callable[[str], int]:
    """A duration that is a whole number of seconds."""
    duration = seconds(low, high)

    def parse(given: str) -> int:
        value = duration(given)
        if value != int(value):
            raise ValueError(given)
        return int(value)

    return parse


def choice(*allowed: str) -> Callable[[str], str]:
    """One of a few words, in any case; returned as it is listed."""
    listed = {word.lower(): word for word in allowed}

    def parse(given: str) -> str:
        if given.lower() not in listed:
            raise ValueError(given)
        return listed[given.lower()]

    return parse


def path(given: str) -> Path:
    if not given or "\0" in given:
        raise ValueError(given)
    return Path(given)


def secret(given: str) -> str:
    if not given:
        raise ValueError(given)
    return given


def nats_url(given: str) -> str:
    """One URL, or several with commas between them. Raises BadUrl."""
    addresses(given)
    return given


def yes_or_no(given: str) -> bool:
    if given.lower() not in ("true", "1", "yes", "on", "false", "0", "no", "off"):
        raise ValueError(given)
    return given.lower() in ("true", "1", "yes", "on")


def without_credentials(urls: str) -> str:
    """URLs as they may be shown: of each what stands before its @ is left out."""
    return ",".join(re.sub(r"^(.*://)?.*@", r"\1", url) for url in urls.split(","))


def in_mebibytes(count: int) -> str:
    """The text that `mebibytes` reads. 0 is allowed nowhere, so it stands for unset."""
    return f"{count / MIB:g}" if count else ""


def in_seconds(span_s: float) -> str:
    """The text that `seconds` reads, in the largest unit that makes it whole."""
    for unit, one_s in reversed(_UNITS_S.items()):
        if span_s and span_s % one_s == 0:
            return f"{span_s / one_s:.0f}{unit}"
    return f"{span_s:g}"


def as_word(value: bool) -> str:
    return "true" if value else "false"


def _within(value: float, low: float, high: float) -> float:
    if not low <= value <= high:
        raise ValueError(value)
    return value
