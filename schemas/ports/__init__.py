"""The ports: protocols through which streams/ uses the drivers in infra/. Begin with broker.py.

streams/roles/drivers.py chooses the driver of each port. Ports import schemas only.

1. A port has only methods that a service uses; a service takes the smallest port.
2. Drivers raise only errors of schemas.errors: Retryable is an outage, Rejected is final.
3. After Unavailable a call may have taken effect: the caller must tolerate that when it repeats the call.
"""

from schemas.ports.access import Credential, Issuer, Tokens, no_token
from schemas.ports.broker import Consumer, Eraser, Follower, Jet, MergedFollower, Reader, Writer
from schemas.ports.files import Blobs, DataDir, NewBlob, OpenBlob, Overflow, OverflowFile
from schemas.ports.key_folder import KeyFolder, KeyPlace
from schemas.ports.keys import (
    DatedSigner,
    Erasure,
    HostIdentity,
    Identities,
    IndexKey,
    KeyFiles,
    Keyring,
    MasterKeys,
    OpenKeyFile,
    Signer,
    Signers,
    SigningKey,
)
from schemas.ports.processes import Child, Process, Server, Source
from schemas.ports.read_models import Views
from schemas.ports.scrub_place import ScrubPlace
from schemas.ports.telemetry import NO_TRACES, Span, Tracer

__all__ = [
    "NO_TRACES",
    "Blobs",
    "Child",
    "Consumer",
    "Credential",
    "DataDir",
    "DatedSigner",
    "Eraser",
    "Erasure",
    "Follower",
    "HostIdentity",
    "Identities",
    "IndexKey",
    "Issuer",
    "Jet",
    "KeyFiles",
    "KeyFolder",
    "KeyPlace",
    "Keyring",
    "MasterKeys",
    "MergedFollower",
    "NewBlob",
    "OpenBlob",
    "OpenKeyFile",
    "Overflow",
    "OverflowFile",
    "Process",
    "Reader",
    "ScrubPlace",
    "Server",
    "Signer",
    "Signers",
    "SigningKey",
    "Source",
    "Span",
    "Tokens",
    "Tracer",
    "Views",
    "Writer",
    "no_token",
]
