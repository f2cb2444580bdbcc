"""Names the claims that a token of this installation must have."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Wanted:
    """The claims that a token must have. Empty: any."""

    issuer: str = ""
    audience: str = ""
    leeway_s: float = 30
