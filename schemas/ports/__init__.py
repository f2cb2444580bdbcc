"""Owns what services ask of their drivers.

streams/roles/drivers.py says which driver stands behind which port.

1. A port has what some service uses, and nothing else; a service takes the smallest port that does.
2. Drivers raise only our errors (schemas.errors): Retryable is an outage, Rejected will not change.
3. After Unavailable a call may have been carried out; whoever repeats it must be able to bear that.
"""

from schemas.ports.broker import Consumer, Eraser, Follower, Jet, Reader, Writer
from schemas.ports.files import Blobs, DataDir
from schemas.ports.key_places import KeyPlace
from schemas.ports.keys import (
    DatedSigner,
    Erasure,
    HostIdentity,
    Identities,
    KeyFiles,
    KeyFolder,
    Keyring,
    MasterKeys,
    OpenKeyFile,
    Signer,
    Signers,
    SigningKey,
)
from schemas.ports.processes import Child, Process, Server, Source
from schemas.ports.read_models import SessionQuery, SessionRow, Views

__all__ = [
    "Blobs",
    "Child",
    "Consumer",
    "DataDir",
    "DatedSigner",
    "Eraser",
    "Erasure",
    "Follower",
    "HostIdentity",
    "Identities",
    "Jet",
    "KeyFiles",
    "KeyFolder",
    "KeyPlace",
    "Keyring",
    "MasterKeys",
    "OpenKeyFile",
    "Process",
    "Reader",
    "Server",
    "SessionQuery",
    "SessionRow",
    "Signer",
    "Signers",
    "SigningKey",
    "Source",
    "Views",
    "Writer",
]
