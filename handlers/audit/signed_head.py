"""Checks the signed heads of an audit chain: their form, their signature, the trust in it (format.md §16)."""

from collections.abc import Iterable
from dataclasses import dataclass

from handlers.crypto.signatures import verify_signature
from handlers.crypto.trust import SIGNER, Trust
from schemas.errors import EvidenceFalse
from schemas.format import dsse
from schemas.format.audit_head import AuditHead


@dataclass(frozen=True, slots=True)
class CheckedHead:
    """A head with a good form. listed: a trusted signer signed it; nothing is known of any other."""

    head: AuditHead
    signer: bytes
    """Fingerprint."""
    name: str
    listed: bool


def check_head(raw: bytes, trust: Trust | None) -> CheckedHead:
    """Return the head in an envelope. Raises EvidenceFalse: dsse.*, audit_head.form, audit.signature."""
    envelope = dsse.parse(raw, dsse.AUDIT_HEAD)
    head = AuditHead.within(envelope)
    lines = trust.keys if trust else ()
    key = next((line.key for line in lines if dsse.fingerprint(line.key) == envelope.keyid), None)
    if trust is None or key is None:
        return CheckedHead(head, envelope.keyid, "", False)
    if not verify_signature(key, envelope.signed, envelope.sig):
        raise EvidenceFalse("the signature of the audit head does not hold", code="audit.signature")
    return CheckedHead(head, envelope.keyid, trust.name(key, SIGNER), trust.lists(key, SIGNER, head.at_us))


def signed_entries(heads: Iterable[AuditHead]) -> dict[int, set[bytes]]:
    """Return H of the entries that heads name, by number, for `Walk`."""
    found: dict[int, set[bytes]] = {}
    for head in heads:
        if head.number:
            found.setdefault(head.number, set()).add(head.entry)
    return found
