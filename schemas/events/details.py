"""The descriptive fields of a session: all of its personal data, which only the session's key opens.

1. The stored text is JCS of the members that differ from their default (format.md §15). So no default below
   may ever change.
2. A reader ignores members of a newer writer.
3. The RDP password is no member: it is sealed by itself, and nothing returns it.
"""

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from schemas.types import Frozen

TAGS_MOST = 10
_LINE = r"^[^\x00-\x1f\x7f-\x9f\u2028\u2029]*$"
"""Text of one line: no control characters."""
_TEXT = r"^[^\x00-\x08\x0b-\x1f\x7f-\x9f]*$"
"""As a line, with tabs and line ends."""

Line = Annotated[str, StringConstraints(strip_whitespace=True, max_length=200, pattern=_LINE)]
Tag = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=64, pattern=_LINE)]
Description = Annotated[str, StringConstraints(strip_whitespace=True, max_length=2_000, pattern=_TEXT)]
HostName = Annotated[str, StringConstraints(max_length=253, pattern=r"^[A-Za-z0-9._:\[\]%-]*$")]
Priority = Literal["low", "normal", "high", "critical"]
Password = Annotated[str, StringConstraints(min_length=1, max_length=256, pattern=r"^[^\x00]*$")]
"""The password of the RDP host; never part of Details."""


class RdpConfig(Frozen):
    """The RDP host that is recorded."""

    host: HostName = ""
    port: Annotated[int, Field(ge=1, le=65_535)] = 3389
    username: Line = ""
    domain: Line = ""
    use_tls: bool = True
    ignore_cert: bool = False
    client_address: HostName = ""
    """Of the client that was connected when the recording began, as the host saw it."""


class Details(Frozen):
    """The fields that describe a session. An empty text: the field is not given."""

    name: Line = ""
    description: Description = ""
    owner: Line = ""
    """The subject of the person to whom the session belongs, exactly as an access token names it."""
    rdp_config: RdpConfig | None = None
    project: Line = ""
    environment: Line = ""
    tags: Annotated[tuple[Tag, ...], Field(max_length=TAGS_MOST)] = ()
    priority: Priority = "normal"
