"""Checks the manifests themselves: strict form, signature, signer, and the line of seals.

1. Every seal is opened and compared with the one before. Only the last is kept whole, for it may be large.
2. The signature is checked with the key that the manifest names. The trust file decides whether that key
   counts, at each seal's own time.
3. A manifest that does not open is a finding, and no check that needs it runs.

Source: format.md §9, §10, §13.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from handlers.crypto.signatures import SIGNATURE_BYTES, verify_signature
from handlers.crypto.trust import HOST, SIGNER, Trust
from handlers.verify.report import Finding, stray_files
from schemas.errors import Rejected
from schemas.format import dsse
from schemas.format.digest import ZERO
from schemas.format.file_names import copied_manifest
from schemas.format.manifest import Manifest
from schemas.ports.evidence import Evidence, Listing, printable

SAME_IN_ALL_SEALS = ("session", "uid", "dek_id", "settings", "host", "started_us")


@dataclass(frozen=True, slots=True)
class Seal:
    """One opened manifest."""

    manifest: Manifest
    digest: bytes
    """H(envelope)."""

    @property
    def place(self) -> str:
        return copied_manifest(self.manifest.seal_no)


class Mark(NamedTuple):
    """A seal's claims about the history: the digest of lines 1 to `last`, and members of two lines."""

    last: int
    digest: bytes
    started: dict[str, str | int]
    """Members of line `last`."""
    created: dict[str, str | int]
    """Members of line 1."""
    settings: dict[str, int]
    """Members of the settings in line 1."""

    @classmethod
    def of(cls, manifest: Manifest) -> "Mark":
        started: dict[str, str | int] = {
            "type": "SealStarted",
            "seal_no": manifest.seal_no,
            "sealed_us": manifest.sealed_us,
            "signer": dsse.fingerprint(manifest.signer.key).hex(),
            "n": len(manifest.chunks),
        }
        host = manifest.host
        created: dict[str, str | int] = {
            "type": "Created",
            "session": manifest.session,
            "uid": manifest.uid.hex(),
            "host": host.name,
            "host_key": host.key.hex(),
            "counter": host.counter,
            "prev_genesis": host.prev_genesis.hex(),
        }
        settings: dict[str, int] = manifest.settings.model_dump()
        return cls(manifest.lifecycle.last, manifest.lifecycle.digest, started, created, settings)


@dataclass(slots=True)
class Seals:
    """The result of opening every manifest."""

    last: Seal | None = None
    """None: the last manifest could not be opened."""
    count: int = 0
    unlisted: list[int] = field(default_factory=list)
    """Seals whose signer the trust file does not list for their time."""
    unlisted_hosts: list[int] = field(default_factory=list)
    """Seals whose host it does not list under that name for the time of the session's start."""
    highest: int = 0
    """Number of the last seal, whether it could be opened or not."""
    marks: list[Mark] = field(default_factory=list)
    """Of each seal, in order."""
    findings: list[Finding] = field(default_factory=list)


def open_seals(evidence: Evidence, trust: Trust, seals: Seals) -> Iterator[Seal]:
    """Open every manifest in order, yield those that can be opened, and fill `seals`."""
    listing = evidence.seals()
    seals.findings.extend(_listing(listing))
    seals.highest = max(listing.numbers, default=0)
    before: Seal | None = None
    for seal_no in sorted(listing.numbers):
        seal = _open(evidence, seal_no, seals.findings)
        seals.last = seal
        if seal is None:
            before = None
            continue
        manifest = seal.manifest
        seals.count += 1
        seals.marks.append(Mark.of(manifest))
        seals.findings.extend(_link(seal, seal_no, before))
        if not trust.lists(manifest.signer.key, SIGNER, manifest.sealed_us):
            seals.unlisted.append(seal_no)
        if not trust.lists(manifest.host.key, HOST, manifest.started_us, manifest.host.name):
            seals.unlisted_hosts.append(seal_no)
        before = seal
        yield seal


def _listing(listing: Listing) -> Iterator[Finding]:
    for name in sorted(listing.unnamed):
        yield Finding("manifest.unnamed", f"manifests/{printable(name)}", "no manifest has this name")
    yield from stray_files("manifests/", listing.strays)
    if not listing.numbers:
        yield Finding("manifest.missing", "manifests/", "there is no manifest")
        return
    first_missing = next(n for n in range(1, len(listing.numbers) + 2) if n not in listing.numbers)
    if first_missing < max(listing.numbers):
        yield Finding(
            "manifest.missing", copied_manifest(first_missing), "the manifest of an earlier seal is not there"
        )


def _open(evidence: Evidence, seal_no: int, findings: list[Finding]) -> Seal | None:
    raw = evidence.manifest(seal_no, dsse.MAX_BYTES[dsse.MANIFEST])
    if raw is None:
        findings.append(Finding("manifest.missing", copied_manifest(seal_no), "the manifest is not there"))
        return None
    try:
        envelope = dsse.parse(raw, dsse.MANIFEST)
        manifest = Manifest.within(envelope)
    except Rejected as error:
        findings.append(Finding("manifest.malformed", copied_manifest(seal_no), error.message))
        return None
    signer = manifest.signer.key
    if envelope.keyid != dsse.fingerprint(signer):
        findings.append(
            Finding("manifest.signature", copied_manifest(seal_no), "keyid is not the signer's fingerprint")
        )
    if not verify_signature(signer, envelope.signed, envelope.sig):
        findings.append(
            Finding("manifest.signature", copied_manifest(seal_no), "the signature does not hold")
        )
    return Seal(manifest, envelope.digest)


def _link(seal: Seal, seal_no: int, before: Seal | None) -> Iterator[Finding]:
    manifest = seal.manifest
    if manifest.seal_no != seal_no:
        yield Finding(
            "manifest.link", copied_manifest(seal_no), f"the manifest says that it is seal {manifest.seal_no}"
        )
    wanted = ZERO if seal_no == 1 else before.digest if before is not None else None
    if wanted is not None and manifest.prev_manifest != wanted:
        yield Finding(
            "manifest.link",
            copied_manifest(seal_no),
            "the manifest before it is another one",
            sealed=manifest.prev_manifest.hex(),
            found=wanted.hex(),
        )
    if before is None:
        return
    earlier = before.manifest
    if any(getattr(manifest, name) != getattr(earlier, name) for name in SAME_IN_ALL_SEALS):
        text = f"one of {', '.join(SAME_IN_ALL_SEALS)} is not the earlier seal's"
        yield Finding("manifest.session", copied_manifest(seal_no), text)
    if manifest.lifecycle.last <= earlier.lifecycle.last:
        text = "the history up to it is not longer than that of the earlier seal"
        yield Finding("manifest.link", copied_manifest(seal_no), text)
    # another signer signs the same ending anew; its header and body stay
    if manifest.ending[:-SIGNATURE_BYTES] != earlier.ending[:-SIGNATURE_BYTES]:
        yield Finding("manifest.session", copied_manifest(seal_no), "the ending is not the earlier seal's")
