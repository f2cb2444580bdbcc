"""The bodies of the installation's own log: the keys that `keys/` must hold, and the keys it must not hold.

1. `lucid.installation` holds KeysNoted. Each event states the whole folder; the last event counts.
2. `lucid.erasures.<uid>` holds one ErasureOrdered, written before the key is erased. An older folder repeats
   every erasure up to the last one before it serves.
3. `lucid.keysmade` holds KeyMade, written after the key file is durable and before its session names the key.
   A folder without the last key is older than the log, unless KeysGivenUp follows.
4. `lucid.keycopies` holds KeysCopied, written before the first key is read for the copy.
5. No body opens or signs anything: they hold numbers, fingerprints and check values.
6. Bodies are JCS.
"""

from typing import Annotated, Literal

from pydantic import Field, TypeAdapter, ValidationError

from schemas.buffers import Bytes
from schemas.errors import Rejected
from schemas.types import Count, Frozen, Hex16, Hex32, Label, TimeUs


class NotedMasterKey(Frozen):
    """One version of the master key. `check` is derived from the key: equal keys have equal checks."""

    version: Count
    check: Hex16


class KeysNoted(Frozen):
    """From now on `keys/` must hold these keys: a folder that lacks one is foreign or older."""

    type: Literal["KeysNoted"] = "KeysNoted"
    version: Literal[1] = 1
    installation: Hex16
    """Content of `keys/installation`."""
    masters: tuple[NotedMasterKey, ...]
    """Every version, oldest first."""
    signers: tuple[Hex32, ...]
    """Fingerprints, oldest first."""
    root: Hex32
    """Fingerprint of the newest trust root; zero: there was none. Its file may be offline."""
    at_us: TimeUs


class ErasureOrdered(Frozen):
    """The session's key is erased for ever, also in every folder that replaces this one."""

    type: Literal["ErasureOrdered"] = "ErasureOrdered"
    version: Literal[1] = 1
    uid: Hex16


class KeyMade(Frozen):
    """The session's key file was made. Every later folder has it, or the fence in its place."""

    type: Literal["KeyMade"] = "KeyMade"
    version: Literal[1] = 1
    uid: Hex16
    session: Label
    at_us: TimeUs


class KeysGivenUp(Frozen):
    """A person said that no newer copy of `keys/` exists: keys made before are not required."""

    type: Literal["KeysGivenUp"] = "KeysGivenUp"
    version: Literal[1] = 1
    at_us: TimeUs


class KeysCopied(Frozen):
    """A copy of `keys/` is made. Until `until_us` it may hold every key of this moment."""

    type: Literal["KeysCopied"] = "KeysCopied"
    version: Literal[1] = 1
    label: Label
    made_us: TimeUs
    until_us: TimeUs


InstallationEvent = Annotated[
    KeysNoted | ErasureOrdered | KeyMade | KeysGivenUp | KeysCopied, Field(discriminator="type")
]
_EVENT: TypeAdapter[InstallationEvent] = TypeAdapter(InstallationEvent)


def read_installation_event(data: Bytes) -> InstallationEvent:
    """Raises Rejected (event.malformed)."""
    try:
        return _EVENT.validate_json(data)
    except ValidationError as error:
        raise Rejected(
            f"not an event of the installation: {error.errors()[0]['msg']}", code="event.malformed"
        ) from None
