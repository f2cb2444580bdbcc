"""The bodies of the host logs: the evidence key of each host, and the counters in use.

1. `lucid.hosts.<host name>` holds HostRegistered; `lucid.counters.<public key in hex>.<counter>` holds
   CounterTaken. A uid follows from key and counter, so a counter belongs to the key, not to the host name.
2. Each of these subjects holds exactly one event, for ever.
3. Bodies are JCS.
"""

from typing import Annotated, Literal

from pydantic import Field, TypeAdapter, ValidationError

from schemas.buffers import Bytes
from schemas.errors import Rejected
from schemas.types import Count, Frozen, Hex32, Label, TimeUs


class HostRegistered(Frozen):
    """The key signs for the host from now on."""

    type: Literal["HostRegistered"] = "HostRegistered"
    version: Literal[1] = 1
    host: str
    key: Hex32
    at_us: TimeUs
    who: Label


class CounterTaken(Frozen):
    """The counter of the key belongs to the session, for ever."""

    type: Literal["CounterTaken"] = "CounterTaken"
    version: Literal[1] = 1
    counter: Count
    session: str


HostEvent = Annotated[HostRegistered | CounterTaken, Field(discriminator="type")]
_HOST_EVENT: TypeAdapter[HostEvent] = TypeAdapter(HostEvent)


def read_host_event(data: Bytes) -> HostEvent:
    """Raises Rejected (event.malformed)."""
    try:
        return _HOST_EVENT.validate_json(data)
    except ValidationError as error:
        raise Rejected(
            f"not an event of a host: {error.errors()[0]['msg']}", code="event.malformed"
        ) from None
