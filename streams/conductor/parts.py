"""Bundles the parts of a conductor; streams/roles makes them."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from handlers.lifecycle.next_action import SilenceLimits
from schemas.errors import Unavailable
from schemas.ports import Signers
from schemas.ports.metrics import NO_METER, Meter
from streams.event_store.event_store import EventStore
from streams.evidence.evidence_store import EvidenceStore
from streams.keys.folder import RequireKeys
from streams.keys.keystore import KeyStore
from streams.scheduling.clock import Clock, now_us


async def no_uploads(session_id: str) -> None:
    """Of a conductor without an upload host. Raises Unavailable (upload.key)."""
    raise Unavailable(f"no upload host here can end {session_id}", code="upload.key")


@dataclass(frozen=True, slots=True)
class ConductorParts:
    """The parts of a conductor."""

    store: EventStore
    keys: KeyStore
    evidence: EvidenceStore
    signers: Signers
    require_keys: RequireKeys
    limits: SilenceLimits = field(default_factory=SilenceLimits)
    clock_us: Clock = now_us
    finish_upload: Callable[[str], Awaitable[None]] = no_uploads
    """Publishes `final` to the recording of an upload, unless it is there."""
    meter: Meter = NO_METER
