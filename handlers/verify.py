"""Owns the verification of one session's evidence: what is checked, in which order, and what it adds up to.

    envelope, signer, line of seals   verify_envelope
    uid, genesis, entries, offsets    verify_lists
    files, digests, chunk headers     verify_files
    heads, signatures, continuity     verify_chain
    ending, parts, equivocations      verify_ending
    history                           verify_history
    with keys: contents               verify_keys, verify_rows, verify_cuts

1. Pure over the port of verify_reader; it never trusts a key that lies beside the evidence.
2. Each check yields findings and goes on; hostile bytes end in findings, never in an exception.
3. What rests on the signer's word alone is not checked and not claimed: started_us, sealed_us, session,
   settings, reason, build, names, attested, and who declared a gap and why.

Source: format.md §13.
"""

from collections.abc import Iterator

from handlers.keys import SessionKeys
from handlers.trust import HOST, SIGNER, Trust
from handlers.verify_chain import check_chain, check_heads
from handlers.verify_ending import check_ending, check_equivocations, check_parts, open_ending
from handlers.verify_envelope import Seal, Seals, open_seals
from handlers.verify_files import check_files
from handlers.verify_findings import Finding, Report, Summary
from handlers.verify_history import check_history
from handlers.verify_keys import check_intake, fit_keys, named_keys, open_parts
from handlers.verify_lists import check_entries, check_identity, check_totals, check_tracks, check_tree
from handlers.verify_reader import Evidence
from handlers.verify_rows import check_rows
from schemas import dsse
from schemas.errors import Denied
from schemas.manifest import Manifest


def verify(evidence: Evidence, trust: Trust, *, keys: bytes | None = None, strict: bool = False) -> Report:
    """Check everything that can be recomputed, and report it.

    keys: the bytes of keys.json; with them contents, fragments and cuts are checked too. strict: notes are
    findings. What the evidence is decides `exit_code` (format.md §13). Raises what leaves no verdict:
    Unreadable, Denied (keys.malformed, keys.unfit).
    """
    named = None if keys is None else named_keys(keys)
    report = Report(strict=strict)
    report.summary.root = trust.root.hex()
    seals = Seals()
    told: list[Finding] = []
    for seal in open_seals(evidence, trust, seals):
        last = seal.manifest.seal_no == seals.highest
        for finding in check_manifest(seal.manifest):
            if last or not finding.is_note:  # notes are said once, of the last seal
                told.append(finding if last else finding.within(seal.place))
    for finding in (*seals.findings, *told):  # a false signature is told before what it signed
        report.add(finding)
    if seals.last is None:
        return report
    manifest = seals.last.manifest
    session_keys = None
    if named is not None:
        try:
            session_keys = fit_keys(manifest, named)
        except Denied:
            if not report.findings:  # a manifest that is false itself cannot say whose keys are wrong
                raise
    _fill(report.summary, seals, seals.last, trust)
    for finding in _check_last(evidence, manifest, seals, report.summary, trust):
        report.add(finding)
    if session_keys is not None:
        for finding in _check_contents(evidence, manifest, session_keys, report.summary):
            report.add(finding)
    return report


def check_manifest(manifest: Manifest) -> Iterator[Finding]:
    """What one manifest proves by itself: no files, no history, no keys."""
    yield from check_identity(manifest)
    yield from check_entries(manifest)
    yield from check_tree(manifest)
    yield from check_totals(manifest)
    ending = open_ending(manifest)
    yield from check_tracks(manifest, set(ending.named) if ending.fragment else None)
    yield from check_heads(manifest)
    yield from check_parts(manifest)
    yield from check_chain(manifest, ending.tails)
    yield from check_ending(manifest, ending)
    yield from check_equivocations(manifest)


def _check_last(
    evidence: Evidence, manifest: Manifest, seals: Seals, summary: Summary, trust: Trust
) -> Iterator[Finding]:
    yield from check_files(evidence, manifest, summary)
    yield from check_history(evidence, seals.marks, summary)
    if not trust.lists(manifest.host.key, HOST, manifest.started_us):
        host = dsse.fingerprint(manifest.host.key).hex()[:8]
        told = f"its key {host} is not in the trust file for the time of the session"
        yield Finding("host.unlisted", f"host {manifest.host.name}", told)


def _check_contents(
    evidence: Evidence, manifest: Manifest, keys: SessionKeys, summary: Summary
) -> Iterator[Finding]:
    yield from check_intake(manifest, keys)
    part_keys, found = open_parts(manifest, keys)
    yield from found
    summary.opened = True
    yield from check_rows(evidence, manifest, keys, part_keys)


def _fill(summary: Summary, seals: Seals, seal: Seal, trust: Trust) -> None:
    manifest = seal.manifest
    summary.session = manifest.session
    summary.uid = manifest.uid.hex()
    summary.signer = dsse.fingerprint(manifest.signer.key).hex()
    summary.signer_name = trust.name(manifest.signer.key, SIGNER) or manifest.signer.name
    summary.signer_listed = not seals.unlisted
    summary.signer_revoked = trust.revokes(manifest.signer.key, SIGNER)
    summary.host = manifest.host.name
    summary.seals = seals.count
    summary.sealed_us = manifest.sealed_us
    summary.end = manifest.end
    summary.plain_bytes = sum(chunk.plain for chunk in manifest.chunks)
    summary.sealed_bytes = manifest.totals.sealed
    summary.fragments = manifest.totals.fragments
    summary.last_seq = max((chunk.last_seq for chunk in manifest.chunks if chunk.track == 0), default=-1)
    summary.gaps = len(manifest.gaps)
    summary.merkle_root = manifest.merkle.root.hex()
