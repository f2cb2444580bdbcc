"""The stored evidence of one installation: chunks, manifests, and files that were found damaged."""

from dataclasses import dataclass

from handlers.lifecycle.session import Session
from schemas.errors import EvidenceFalse
from schemas.format import dsse, file_names
from schemas.format.digest import h
from schemas.format.manifest import Manifest
from schemas.ports import Blobs, OpenBlob


@dataclass(frozen=True, slots=True)
class EvidenceStore:
    """Three stores that are used together. quarantine: damaged files of the other two."""

    chunks: Blobs
    manifests: Blobs
    quarantine: Blobs

    def manifest(self, session: Session) -> Manifest:
        """The newest manifest of a sealed session, as its log names it.

        Blocks. Raises EvidenceFalse (manifest.digest): another one is stored, or none.
        """
        seal = session.seals[-1]
        envelope = self.manifests.read(file_names.stored_manifest(session.uid, seal.seal_no))
        if envelope is None or h(envelope) != seal.manifest:
            raise _other_manifest(session)
        return Manifest.within(dsse.parse(envelope, dsse.MANIFEST))

    def open_manifest(self, session: Session) -> OpenBlob:
        """The envelope of the newest manifest of a sealed session, open for reading. The caller closes it.

        Blocks. Raises EvidenceFalse (manifest.digest): another one is stored, or none.
        """
        seal = session.seals[-1]
        blob = self.manifests.open(file_names.stored_manifest(session.uid, seal.seal_no))
        if blob is None:
            raise _other_manifest(session)
        try:
            if blob.content().digest != seal.manifest:
                raise _other_manifest(session)
        except BaseException:
            blob.close()
            raise
        return blob


def _other_manifest(session: Session) -> EvidenceFalse:
    return EvidenceFalse(
        f"the manifest of {session.id} in the store is not the one that was sealed", code="manifest.digest"
    )
