"""The profiles of a recorded display: how many pictures a second, and how good they are.

docs/rdp-hosts.md states the measured MB an hour of each.
"""

from types import MappingProxyType
from typing import Literal, NamedTuple

ProfileName = Literal["archive", "standard", "smooth"]


class Profile(NamedTuple):
    frame_rate: int
    quality: Literal["low", "medium", "high", "ultra"]


PROFILES = MappingProxyType(
    {
        "archive": Profile(5, "medium"),
        "standard": Profile(12, "high"),
        "smooth": Profile(25, "high"),
    }
)
