"""The body of the installation's own log: which keys its `keys/` folder must hold.

1. `lucid.installation` holds KeysNoted. Each event states everything; the last one counts.
2. Nothing in it opens or signs anything: numbers, fingerprints and check values.
3. Bodies are JCS.
"""

from typing import Literal

from pydantic import ValidationError

from schemas.buffers import Bytes
from schemas.errors import Rejected
from schemas.types import Count, Frozen, Hex16, Hex32, TimeUs


class NotedMasterKey(Frozen):
    """One version of the master key. `check` is derived from it, and tells whether a key is the same."""

    version: Count
    check: Hex16


class KeysNoted(Frozen):
    """From now on `keys/` must hold these: a folder that lacks one is foreign or older."""

    type: Literal["KeysNoted"] = "KeysNoted"
    version: Literal[1] = 1
    installation: Hex16
    """What `keys/installation` holds."""
    masters: tuple[NotedMasterKey, ...]
    """Every version, oldest first."""
    signers: tuple[Hex32, ...]
    """Fingerprints, oldest first."""
    root: Hex32
    """Fingerprint of the newest trust root; zero: none was ever here. Its file may be kept elsewhere."""
    at_us: TimeUs


def read_installation_event(data: Bytes) -> KeysNoted:
    """Raises Rejected (event.malformed)."""
    try:
        return KeysNoted.model_validate_json(data)
    except ValidationError as error:
        raise Rejected(
            f"not an event of the installation: {error.errors()[0]['msg']}", code="event.malformed"
        ) from None
