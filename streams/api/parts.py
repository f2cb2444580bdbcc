"""The parts that the routes need, bundled; streams/roles makes them."""

from collections.abc import Mapping
from dataclasses import dataclass

from fastapi import Request

from schemas.config.settings import Settings
from schemas.ports import DataDir, Jet, Tokens
from schemas.ports.metrics import Meter, Samples
from streams.api.dependencies import Look
from streams.api.own_answers import OwnAnswers
from streams.api.transfers import Transfers
from streams.event_store.looks import Looks
from streams.event_store.request_keys import RequestKeys
from streams.event_store.session_log import SessionLog
from streams.evidence.chunk_services import ChunkServices
from streams.evidence.evidence_store import EvidenceStore
from streams.evidence.stored_chunks import ChunkLists
from streams.host.own_recordings import OwnRecordings
from streams.host.upload import Uploads
from streams.keys.keystore import KeyStore


@dataclass(frozen=True, slots=True)
class ApiParts:
    """One for each process that serves HTTP."""

    jet: Jet
    own_answers: OwnAnswers
    log: SessionLog
    evidence: EvidenceStore
    keys: KeyStore
    chunks: ChunkServices
    lists: ChunkLists
    transfers: Transfers
    uploads: Uploads
    recordings_here: OwnRecordings
    data: DataDir
    tokens: Tokens
    looks: Looks
    request_keys: RequestKeys
    settings: Settings
    meter: Meter
    samples: Samples
    health: Mapping[str, Look]
    """The looks at the parts that the served roles depend on, by name."""
    urls: Mapping[str, str]
    """Where others reach each role, by its name; those that are not served here included."""
    others: Mapping[str, Look]
    """The looks at the roles that other processes serve, by the name of the role."""
    service: str
    version: str


def parts_of(request: Request) -> ApiParts:
    """The parts of the application that serves this request."""
    parts: ApiParts = request.app.state.parts
    return parts


async def given_parts(request: Request) -> ApiParts:
    """As `parts_of`, for routes: the framework runs a function that is not async in a thread."""
    return parts_of(request)
