"""Verifies one session's evidence: the order of all checks, and the report that they add up to.

    envelope, signer, line of seals          seals
    uid, entries, offsets, tree; files       chunks
    heads, signatures, continuity, gaps      chain
    ending, parts, equivocations             ending
    history, the host's request              history
    silence                                  silence
    with keys: chunks, fragments, cuts       opening, contents

1. It reads only through the port schemas.ports.evidence. It never trusts a key that lies beside the evidence.
2. Each check yields findings and goes on: hostile bytes end in findings, never in an exception. If a check
   raises after all, that is a finding too (verify.internal), and the other checks still run.
3. Facts that rest on the signer's word alone are neither checked nor claimed; `bindings` lists them.

Source: format.md §13.
"""

from collections.abc import Callable, Iterable, Iterator
from functools import partial

from handlers.crypto.keys import SessionKeys
from handlers.crypto.trust import HOST, SIGNER, Trust
from handlers.verify.bindings import on_signers_word
from handlers.verify.chain import check_chain, check_heads
from handlers.verify.chunks import (
    check_entries,
    check_files,
    check_identity,
    check_totals,
    check_tracks,
    check_tree,
)
from handlers.verify.contents import check_rows
from handlers.verify.ending import check_ending, check_equivocations, check_parts, open_ending
from handlers.verify.history import check_history
from handlers.verify.opening import check_intake, fit_keys, named_keys, open_parts
from handlers.verify.report import Finding, Report, Summary
from handlers.verify.seals import Seal, Seals, open_seals
from handlers.verify.silence import Silences, look_between
from schemas.errors import Denied, RefusedByState, Retryable, Unreadable
from schemas.format import dsse
from schemas.format.manifest import Manifest
from schemas.ports.evidence import Evidence

NO_VERDICT = (Unreadable, RefusedByState, Retryable, MemoryError)
"""Errors that say nothing of the evidence: it cannot be read, or its session was destroyed meanwhile."""


def verify(evidence: Evidence, trust: Trust, *, keys: bytes | None = None, strict: bool = False) -> Report:
    """Check everything that can be recomputed, and return the report; its `exit_code` is the verdict.

    keys: the bytes of keys.json; with them contents, fragments and cuts are checked too. strict: notes are
    findings. Raises the errors that leave no verdict: Unreadable, Denied (keys.malformed, keys.unfit).
    """
    named = None if keys is None else named_keys(keys)
    report = Report(strict=strict)
    report.summary.root = trust.root.hex()
    seals = Seals()
    for finding in _guarded("manifests", partial(_check_seals, evidence, trust, seals)):
        report.add(finding)
    report.put_first(seals.findings)  # a false signature comes before the facts that it signed
    if seals.last is None:
        return report
    manifest, summary, silences = seals.last.manifest, report.summary, Silences()
    session_keys = None
    if named is not None:
        try:
            session_keys = fit_keys(manifest, named)
        except Denied:
            if not report.findings:  # a false manifest cannot tell the right keys from the wrong
                raise
    _fill(summary, seals, seals.last, trust)
    checks: dict[str, Callable[[], Iterable[Finding]]] = {
        "chunks": partial(check_files, evidence, manifest, summary),
        "history": partial(check_history, evidence, seals.marks, summary),
    }
    if session_keys is not None:
        checks["contents"] = partial(_check_contents, evidence, manifest, session_keys, summary, silences)
    for place, check in checks.items():
        for finding in _guarded(place, check):
            report.add(finding)
    for finding in _guarded("silence", partial(_check_silence, manifest, silences, summary)):
        report.add(finding)
    summary.on_signers_word = on_signers_word(manifest, opened=summary.opened)
    return report


def check_manifest(manifest: Manifest) -> Iterator[Finding]:
    """Check one manifest by itself: no files, no history, no keys."""
    ending = open_ending(manifest)
    named = set(ending.named) if ending.fragment else None
    checks: dict[str, Callable[[], Iterable[Finding]]] = {
        "identity": partial(check_identity, manifest),
        "entries": partial(check_entries, manifest),
        "tree": partial(check_tree, manifest),
        "totals": partial(check_totals, manifest),
        "tracks": partial(check_tracks, manifest, named),
        "heads": partial(check_heads, manifest),
        "parts": partial(check_parts, manifest),
        "chain": partial(check_chain, manifest, ending.tails),
        "ending": partial(check_ending, manifest, ending),
        "equivocations": partial(check_equivocations, manifest),
    }
    for place, check in checks.items():
        yield from _guarded(place, check)


def _check_seals(evidence: Evidence, trust: Trust, seals: Seals) -> Iterator[Finding]:
    for seal in open_seals(evidence, trust, seals):
        last = seal.manifest.seal_no == seals.highest
        for finding in check_manifest(seal.manifest):
            if last or not finding.is_note:  # notes count once, for the last seal
                yield finding if last else finding.within(seal.place)


def _guarded(place: str, check: Callable[[], Iterable[Finding]]) -> Iterator[Finding]:
    """Yield the findings of a check; any other error of it is a finding too, but for NO_VERDICT."""
    try:
        yield from check()
    except NO_VERDICT:
        raise
    except Exception as error:  # a fault of ours must not become a crash
        text = f"the check broke off: {type(error).__name__}: {str(error)[:200]}"
        yield Finding("verify.internal", place, text.encode("unicode_escape").decode("ascii"))


def _check_contents(
    evidence: Evidence, manifest: Manifest, keys: SessionKeys, summary: Summary, silences: Silences
) -> Iterator[Finding]:
    yield from check_intake(manifest, keys)
    part_keys, found = open_parts(manifest, keys)
    yield from found
    summary.opened = True
    yield from check_rows(evidence, manifest, keys, part_keys, silences)


def _check_silence(manifest: Manifest, silences: Silences, summary: Summary) -> Iterator[Finding]:
    look_between(manifest, silences, within=not summary.opened)
    yield from silences.note()


def _fill(summary: Summary, seals: Seals, seal: Seal, trust: Trust) -> None:
    manifest = seal.manifest
    summary.session = manifest.session
    summary.uid = manifest.uid.hex()
    summary.signer = dsse.fingerprint(manifest.signer.key).hex()
    summary.signer_name = trust.name(manifest.signer.key, SIGNER) or manifest.signer.name
    summary.signer_listed = not seals.unlisted
    summary.signer_revoked = trust.revokes(manifest.signer.key, SIGNER)
    summary.host = manifest.host.name
    summary.host_key = dsse.fingerprint(manifest.host.key).hex()
    summary.host_listed = not seals.unlisted_hosts
    summary.host_revoked = trust.revokes(manifest.host.key, HOST)
    summary.seals = seals.count
    summary.sealed_us = manifest.sealed_us
    summary.end = manifest.end
    summary.plain_bytes = sum(chunk.plain for chunk in manifest.chunks)
    summary.sealed_bytes = manifest.totals.sealed
    summary.fragments = manifest.totals.fragments
    summary.last_seq = max((chunk.last_seq for chunk in manifest.chunks if chunk.track == 0), default=-1)
    summary.gaps = len(manifest.gaps)
    summary.merkle_root = manifest.merkle.root.hex()
