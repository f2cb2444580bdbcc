"""The verb `lucid export`: writes an evidence copy, the original bytes, or the installation's trust file.

1. Nothing is overwritten, and a half-written file has no name: a failed export leaves no trace.
2. Only sealed bytes are written: each chunk is compared with its digest and opened in full first. Only
   `lucid verify` says whether the evidence is true.
3. `--out -` succeeds only when stdout has taken every byte.
4. A recording, a key or an evidence copy leaves the installation only when the audit chain holds the request
   (streams/cli/looking.py). From an evidence copy it leaves unrecorded: nobody may be there to ask.
"""

import hashlib
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, BinaryIO

import typer

from handlers.crypto.keys import SessionKeys
from handlers.crypto.trust import replaces
from handlers.evidence.original import lacks, opened_by, original, parts, sealed_manifest
from handlers.verify.opening import named_keys
from schemas.config.values import size_text
from schemas.errors import Misuse
from schemas.format import dsse
from schemas.format.manifest import Manifest
from schemas.format.trust import TrustFile
from schemas.ports.evidence import Evidence
from schemas.ports.telemetry import NO_SPAN, Span
from schemas.telemetry.span_facts import ACTION, BYTES
from streams.cli import output
from streams.cli.attach import attached, is_copy, looking_up, run
from streams.cli.looking import ReasonOption, ended, looking
from streams.cli.output import JsonFlag
from streams.cli.verbs.verify import read_beside, read_keys
from streams.event_store.audit_log import Asked
from streams.evidence.proof_spans import session_span
from streams.evidence.sealed_session import GuardedEvidence, keys_file, load_sealed, open_keys
from streams.evidence.trust import trust_file, trusted_keys
from streams.roles.drivers import (
    KEYS,
    Installation,
    absolute,
    copy_at,
    mode_at,
    new_file,
    read_bounded,
    traced_apart,
    write_copy,
)

NAME, SPAN = "lucid-export", "export session"
"""Of this process and its work, in traces."""
STDOUT = "-"
ORIGINAL, EVIDENCE, WITH_KEYS = "export", "export_evidence", "export_keys"
"""Actions in the audit chain."""


@dataclass(frozen=True, slots=True)
class Origin:
    """The evidence to export. asked: the recorded request to an installation; None: it is a copy."""

    name: str
    evidence: Evidence
    uid: bytes = b""
    keys: SessionKeys | None = None
    keys_json: bytes | None = None
    asked: Asked | None = None


@dataclass(frozen=True, slots=True)
class Purpose:
    """The action that the audit chain names, where the bytes go, and why."""

    action: str
    to: str
    reason: str

    @property
    def wants_keys(self) -> bool:
        return self.action != EVIDENCE


def export(
    target: Annotated[
        str, typer.Argument(metavar="SESSION|DIR", help="A session, or an evidence copy.")
    ] = "",
    evidence: Annotated[
        Path | None, typer.Option("--evidence", metavar="DIR", readable=False, help="Write an evidence copy.")
    ] = None,
    with_keys: Annotated[
        bool, typer.Option("--with-keys", help="Put the key into the copy: its holder may watch it.")
    ] = False,
    out: Annotated[
        str, typer.Option("--out", metavar="FILE", help="Write the original bytes; -: to stdout.")
    ] = "",
    keys: Annotated[
        Path | None,
        typer.Option("--keys", metavar="FILE", readable=False, help="The data key of a copy (keys.json)."),
    ] = None,
    track: Annotated[int, typer.Option("--track", min=0, max=1, help="0 the screen, 1 events.")] = 0,
    part: Annotated[int | None, typer.Option("--part", min=0, help="One part of the track only.")] = None,
    trust_to: Annotated[
        Path | None,
        typer.Option("--trust-file", metavar="FILE", readable=False, help="Write the trust file."),
    ] = None,
    root_key: Annotated[
        Path | None,
        typer.Option("--root-key", metavar="FILE", readable=False, help="The trust root, kept offline."),
    ] = None,
    new_root: Annotated[
        bool, typer.Option("--new-root", help="The trust root is lost: make another.")
    ] = False,
    reason: ReasonOption = "",
    as_json: JsonFlag = False,
) -> int:
    """Write out a recording, its evidence, or the trust file."""
    if bool(target) != bool(evidence or out) or not (target or trust_to):
        raise Misuse(
            "name a session or copy, and where to export it",
            code="usage",
            hint="lucid export SESSION --out FILE, lucid export SESSION --evidence DIR, "
            "or lucid export --trust-file FILE",
        )
    if out == STDOUT and (evidence or as_json):
        raise Misuse("with --out - the bytes are the only thing on stdout", code="usage")
    if out == STDOUT:
        output.require_delivery()
    result: dict[str, Any] = {}
    if trust_to is not None:
        result |= _export_trust(trust_to, root_key, new_root, as_json)
    if target:
        action = WITH_KEYS if with_keys else ORIGINAL if out else EVIDENCE
        to = ", ".join([*([str(absolute(evidence))] if evidence else []), *([out] if out else [])])
        origin = _origin(target, keys, Purpose(action, to, reason))
        result["session"] = origin.name
        with ended(origin.asked), _traced(origin, action) as span:
            if evidence is not None:
                result |= _export_evidence(origin, evidence, with_keys, as_json)
            if out:
                result |= _export_original(origin, out, track, part, as_json)
            span.set({BYTES: result.get("bytes", 0) + result.get("out_bytes", 0)})
    if as_json:
        output.emit(result)
    return 0


@contextmanager
def _traced(origin: Origin, action: str) -> Iterator[Span]:
    """The span of an export, in the trace of the session. The export of a copy has none."""
    if origin.asked is None:
        yield NO_SPAN
        return
    with (
        traced_apart(NAME, Installation.here().data) as tracer,
        session_span(tracer, SPAN, origin.name, origin.uid) as span,
    ):
        span.set({ACTION: action})
        yield span


def _origin(target: str, keys: Path | None, purpose: Purpose) -> Origin:
    path, wants_keys = Path(target), purpose.wants_keys
    beside = path / KEYS
    if not is_copy(target, complete=not wants_keys or keys is not None or bool(mode_at(beside))):
        with looking_up(target, _keys_needed(beside)):
            return run(_from_here(target, purpose))
    evidence = copy_at(path)
    if not wants_keys:
        manifest = sealed_manifest(evidence)
        return Origin(manifest.session, evidence, manifest.uid)
    raw = read_keys(keys) if keys else read_beside(beside)
    if raw is None:
        raise _keys_needed(beside)
    held = named_keys(raw)  # refused before the evidence is judged (format.md §13)
    manifest = sealed_manifest(evidence)
    return Origin(manifest.session, evidence, manifest.uid, opened_by(manifest, held), raw)


def _keys_needed(beside: Path) -> Misuse:
    return Misuse(f"there is no {beside}", code="keys.needed", hint="give --keys FILE")


async def _from_here(name: str, purpose: Purpose) -> Origin:
    here = Installation.here()
    async with attached() as jet, looking(here, jet) as looks:
        found = await load_sealed(jet, here.data, name)
        uid, detail = found.session.uid, f"to {purpose.to}"
        asked = await looks.begin(purpose.action, name, purpose.reason, uid=uid, detail=detail)
        if not purpose.wants_keys:
            return Origin(name, found.evidence, uid, asked=asked)
        try:
            held = await open_keys(here.key_files, here.keyring, found.session)
        except BaseException as error:
            asked.ended_by(error)
            raise
    raw = keys_file(found.session, held.keys)
    evidence = GuardedEvidence(found.evidence, held)
    return Origin(name, evidence, uid, held.keys, raw, asked)


def _export_evidence(origin: Origin, target: Path, with_keys: bool, as_json: bool) -> dict[str, object]:
    written = write_copy(origin.evidence, target, keys=origin.keys_json if with_keys else None)
    if not as_json:
        keys = ", with its key: its holder may watch" if with_keys else ""
        output.say(f"{origin.name}: {size_text(written)} in {output.short_path(target)}{keys}")
        output.note(f"verify it: lucid verify {output.short_path(target)} --trust FILE")
    return {"evidence": str(target), "bytes": written, "with_keys": with_keys}


def _export_original(
    origin: Origin, out: str, track: int, part: int | None, as_json: bool
) -> dict[str, object]:
    assert origin.keys is not None
    manifest = sealed_manifest(origin.evidence)
    plain = original(origin.evidence, manifest, origin.keys, track=track, part=part)
    if out == STDOUT:
        size, digest = _write_all(_delivered(plain), sys.stdout.buffer)
        output.require_delivery()
    else:
        with new_file(Path(out)) as file:
            size, digest = _write_all(plain, file)
    for note in _limits(manifest, track, part):
        output.note(f"NOTE {note}")
    output.note(f"{origin.name}: {size_text(size)} of track {track}; SHA-256:")
    if out == STDOUT:
        output.note(digest)
    elif not as_json:
        output.say(f"{digest}  {out}")  # the form that sha256sum --check reads
    missing = lacks(manifest, track=track, part=part)
    return {"out": out, "out_bytes": size, "sha256": digest, "track": track, "fragments_missing": missing}


def _limits(manifest: Manifest, track: int, part: int | None) -> Iterator[str]:
    """The limits of the exported bytes, as the manifest declares them."""
    if missing := lacks(manifest, track=track, part=part):
        yield f"{output.count_of(missing, 'fragment')} of it are missing, as the manifest declares"
    numbers = parts(manifest, track=track)
    if part is None and len(numbers) > 1:
        yield f"{len(numbers)} parts, one after the other; --part N writes one of them"
    if manifest.end != "final":
        yield f"the installation ended it: {manifest.end}, {manifest.reason}"


def _delivered(plain: Iterator[bytes]) -> Iterator[bytes]:
    """A piece after stdout has taken the one before. Raises NoSpace (disk.full), Unavailable (output.*)."""
    for piece in plain:
        yield piece
        output.require_delivery()


def _write_all(plain: Iterator[bytes], file: BinaryIO) -> tuple[int, str]:
    """Write all pieces; return their bytes and SHA-256 (hex)."""
    digest, size = hashlib.sha256(), 0
    for piece in plain:
        digest.update(piece)
        size += len(piece)
        rest = memoryview(piece)
        while rest:  # an unbuffered write may be partial
            rest = rest[file.write(rest) :]
    return size, digest.hexdigest()


def _export_trust(target: Path, root_key: Path | None, new_root: bool, as_json: bool) -> dict[str, object]:
    try:
        old = read_bounded(target, dsse.MAX_BYTES[dsse.TRUST])
    except OSError as error:
        raise Misuse(f"{target} cannot be replaced: {error.strerror}", code="trust.replaced") from None
    raw = run(_made_trust(int(time.time()), root_key, new_root))
    if old is not None and not replaces(old, raw):
        raise Misuse(
            f"{target} is not an older trust file of this installation, and stays as it is",
            code="trust.replaced",
            hint="name another place, or move it away",
        )
    with new_file(target, replace=old is not None) as file:
        file.write(raw)
    written = TrustFile.within(dsse.parse(raw, dsse.TRUST))
    root = dsse.fingerprint(written.root).hex()
    if not as_json:
        keys = output.count_of(len(written.keys), "key")
        output.say(f"{output.short_path(target)}: {keys}, signed by the root key")
        output.say(output.digits(root, len(root)))
        output.note("give this fingerprint to the person who verifies, by another way than the file")
    return {"trust_file": str(target), "root": root, "serial": written.serial, "keys": len(written.keys)}


async def _made_trust(serial: int, root_key: Path | None, new_root: bool) -> bytes:
    here = Installation.here()
    signers = here.signers
    async with attached() as jet:
        keys = await trusted_keys(jet, signers)
        folder = here.logged_keys(jet)
        await folder.check()
        root = signers.new_root() if new_root else signers.root(root_key)
        await folder.note()
    return trust_file(keys, root, serial)
