"""The signed end of an audit chain, which lets a stranger check a copy of the chain (format.md §16)."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from schemas.format.document import Document
from schemas.types import Hex16, Hex32, TimeUs


class AuditHead(Document):
    """A signer's statement: at `at_us` the chain had `number` entries, and the last one had this digest."""

    NAME: ClassVar[str] = "audit_head"

    type: Literal["lucid.audit_head"] = "lucid.audit_head"
    version: Literal[1] = 1
    installation: Hex16
    """Content of `keys/installation`."""
    number: Annotated[int, Field(ge=0, lt=2**53)]
    entry: Hex32
    """H of entry `number`; zero: the chain is empty."""
    at_us: TimeUs
