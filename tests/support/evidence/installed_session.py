"""A recorded session in a real installation: its log, its chunk events, its key. Its chunks are not stored.

`live`: the recording goes on, and every chunk is proven. Otherwise the session is sealed.
"""

from dataclasses import dataclass

from handlers.crypto.key_file import build_key_file
from infra.disk.data_dir import DataDir
from infra.jetstream import Jet
from infra.keys.master import Keyring
from infra.keys.session_keys import DiskKeyFiles
from schemas import subjects
from schemas.events.chunk import Proven, Stored
from schemas.events.commands import CompleteSeal
from schemas.format import dsse
from schemas.format.file_names import stored_manifest
from schemas.format.jcs import jcs
from schemas.format.manifest import Manifest
from streams.event_store import topology
from tests.support.evidence.recorded_session import KEYS, NAME, RecordedSession

UNTIL_STOP = -2
"""The last two lines of a recorded session's history are Stop and SealStarted."""


@dataclass
class InstalledSession:
    """What the installation holds of it. files: sealed chunks by index; manifest: None while it is live."""

    recorded: RecordedSession
    manifest: Manifest | None = None
    envelope: bytes = b""

    @property
    def uid(self) -> bytes:
        return self.recorded.uid

    @property
    def files(self) -> dict[int, bytes]:
        return self.recorded.files


async def install(
    jet: Jet, data: DataDir, recorded: RecordedSession, *, live: bool, declared: bool = False
) -> InstalledSession:
    """Put the session there. declared: the streams are."""
    if not declared:
        await topology.declare(jet, 1 << 30)
    made = InstalledSession(recorded)
    if not live:
        made.manifest, made.envelope = recorded.seal()
        totals, tree = made.manifest.totals, made.manifest.merkle
        recorded.do(
            CompleteSeal,
            seal_no=1,
            manifest=dsse.parse(made.envelope, dsse.MANIFEST).digest.hex(),
            root=tree.root.hex(),
            chunks=tree.tree_size,
            plain=totals.plain,
            sealed=totals.sealed,
        )
        place = data.manifests / stored_manifest(recorded.uid, 1)
        place.parent.mkdir(parents=True)
        place.write_bytes(made.envelope)
    seq = 0
    for line in recorded.history[:UNTIL_STOP] if live else recorded.history:
        seq = await jet.append(subjects.lifecycle(NAME), line, seq)
    for _, stored in recorded.stored if live else ():
        await publish_proven(jet, stored)
    version, master = Keyring(data.keys).begin()
    files = DiskKeyFiles(data.keys / "sessions")
    files.make(recorded.uid, build_key_file(master, version, recorded.uid, KEYS.dek))
    return made


async def publish_proven(jet: Jet, stored: Stored) -> None:
    """The event by which the pipeline proved a chunk."""
    proven = Proven.model_validate(stored.model_dump(mode="json") | {"type": "lucid.chunk.proven.v1"})
    body = jcs(proven.model_dump(mode="json"))
    await jet.publish(subjects.chunk(subjects.PROVEN, stored.session), body)
