"""Verifies a tombstone: the signed statement about a session whose key was destroyed (format.md §12).

1. A tombstone names no key: the trust file must list the key whose fingerprint its envelope carries. If it
   does not, nothing is false and nothing is known: exit code 9.
2. A tombstone proves that a signer said so. No signature can prove that no copy of a key is left.
"""

from handlers.crypto.signatures import verify_signature
from handlers.crypto.trust import SIGNER, Trust
from handlers.verify.report import Finding, Report
from schemas.errors import Rejected
from schemas.format import dsse
from schemas.format.trust import Tombstone

PLACE = "tombstone"


def is_tombstone(raw: bytes) -> bool:
    """Return whether the file is a tombstone, damaged or not."""
    if dsse.TOMBSTONE.encode() in raw:
        return True
    other = any(kind.encode() in raw for kind in (dsse.MANIFEST, dsse.TRUST))
    return not other and b'"payloadType"' in raw and b'"signatures"' in raw


def verify_tombstone(raw: bytes, trust: Trust, *, strict: bool = False) -> tuple[Report, Tombstone | None]:
    """Return the report, and the tombstone if it could be read."""
    report = Report(strict=strict)
    report.summary.root = trust.root.hex()
    report.summary.host_listed = True  # a tombstone is no host's
    try:
        envelope = dsse.parse(raw, dsse.TOMBSTONE)
        tombstone = Tombstone.within(envelope)
    except Rejected as error:
        report.add(Finding("tombstone.malformed", PLACE, error.message))
        return report, None
    report.summary.uid = tombstone.uid.hex()
    report.summary.signer = envelope.keyid.hex()
    keys = [line.key for line in trust.keys if dsse.fingerprint(line.key) == envelope.keyid]
    if keys:
        report.summary.signer_name = trust.name(keys[0], SIGNER)
        report.summary.signer_listed = trust.lists(keys[0], SIGNER, tombstone.at_us)
        report.summary.signer_revoked = trust.revokes(keys[0], SIGNER)
        if not verify_signature(keys[0], envelope.signed, envelope.sig):
            report.add(Finding("tombstone.signature", PLACE, "the signature does not hold"))
    return report, tombstone
