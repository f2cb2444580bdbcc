"""A signed tombstone of a recorded session."""

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from schemas.format import dsse
from schemas.format.trust import Tombstone


def tombstone(signer: Ed25519PrivateKey) -> bytes:
    said = Tombstone(
        uid=bytes(16),
        dek_id=bytes(16),
        manifest=bytes(32),
        who="ann",
        approver="bob",
        reason="expired",
        at_us=1_700_000_000_000_000,
        places=({"place": "keys", "outcome": "overwritten"},),  # type: ignore[arg-type]
        backups_until_us=0,
    )
    return dsse.build(said.build(), dsse.TOMBSTONE, signer.sign, signer.public_key().public_bytes_raw())
