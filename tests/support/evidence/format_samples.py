"""A small session made of fixed keys, times and texts, for tests of the format."""

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from handlers.crypto.keys import SessionKeys
from handlers.crypto.signatures import public_bytes
from handlers.format.fragment import FragmentSealer
from schemas.events.details import Details, RdpConfig
from schemas.format.digest import ZERO
from schemas.format.fragment import PartSettings, genesis, session_uid

HOST = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
SIGNER = Ed25519PrivateKey.from_private_bytes(bytes(range(32, 64)))
HOST_PUBLIC, SIGNER_PUBLIC = public_bytes(HOST), public_bytes(SIGNER)
DEK = bytes(range(64, 96))
KEYS = SessionKeys(DEK)
COUNTER = 7
UID = session_uid(HOST_PUBLIC, COUNTER)
GENESIS = genesis(UID, 0, HOST_PUBLIC, COUNTER, ZERO, KEYS.intake_public)
START_US = 1_700_000_000_000_000
SETTINGS = PartSettings(encoder="x264", reason="start")
PART_KEY = bytes(range(96, 128))
DETAILS = Details(
    name="Caf\u00e9 till 7",
    description="two\nlines",
    owner="ada@example",
    rdp_config=RdpConfig(host="till-7.example", username="ada", domain="SHOP", ignore_cert=True),
    project="audit",
    environment="production",
    tags=("till", "evening"),
    priority="high",
)
PASSWORD = "correct horse"


def sealer(track: int = 0) -> FragmentSealer:
    start = genesis(UID, track, HOST_PUBLIC, COUNTER, ZERO, KEYS.intake_public)
    return FragmentSealer(UID, track, HOST, KEYS.intake_public, start)


def words(count: int) -> bytes:
    """Compressible bytes, always the same."""
    text = b"".join(b"line %d of the screen, %d\n" % (n, n * n) for n in range(count // 20 + 1))
    return text[:count]
