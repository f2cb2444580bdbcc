"""The bodies of the installation's own log: which keys `keys/` must hold, and which it must not.

1. `lucid.installation` holds KeysNoted. Each event states everything; the last one counts.
2. `lucid.erasures.<uid>` holds ErasureOrdered, once, before a key is erased. A folder that is older than the
   last one of all is brought up to it.
3. `lucid.keysmade` holds KeyMade, after a key file is durable and before its session names the key: a folder
   without the last one is older. After KeysGivenUp it is not.
4. `lucid.keycopies` holds KeysCopied, before the first key is read for the copy.
5. Nothing in them opens or signs anything: numbers, fingerprints and check values.
6. Bodies are JCS.
"""

from typing import Annotated, Literal

from pydantic import Field, TypeAdapter, ValidationError

from schemas.buffers import Bytes
from schemas.errors import Rejected
from schemas.types import Count, Frozen, Hex16, Hex32, Label, TimeUs


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


class ErasureOrdered(Frozen):
    """The key of this session is erased for ever, in every folder that ever takes this one's place."""

    type: Literal["ErasureOrdered"] = "ErasureOrdered"
    version: Literal[1] = 1
    uid: Hex16


class KeyMade(Frozen):
    """The key file of this session was made: every folder to come has it, or the fence in its place."""

    type: Literal["KeyMade"] = "KeyMade"
    version: Literal[1] = 1
    uid: Hex16
    session: Label
    at_us: TimeUs


class KeysGivenUp(Frozen):
    """A person said that there is no newer copy of `keys/`: what was made before is not asked for."""

    type: Literal["KeysGivenUp"] = "KeysGivenUp"
    version: Literal[1] = 1
    at_us: TimeUs


class KeysCopied(Frozen):
    """A copy of `keys/` is made: until its end it may hold every key that is there now."""

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
