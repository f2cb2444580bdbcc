"""Owns `lucid export`: an evidence copy, the original bytes, or the installation's trust file.

1. Nothing is overwritten, and what is half written has no name: a failed export leaves no trace.
2. Bytes that leave are those that were sealed: each chunk is compared with its digest and opened in full
   first. Whether the evidence is true is for `lucid verify` to say.
3. `--out -` ends well only when stdout took every byte.
4. A recording or a key that leaves an installation is noted first (streams.event_store.audit_log).
"""

import hashlib
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, BinaryIO

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
from schemas.ports import DataDir
from schemas.ports.evidence import Evidence
from streams.cli import output
from streams.cli.attach import attached, is_copy, named, run
from streams.cli.output import JsonFlag
from streams.cli.verbs.verify import read_beside, read_keys
from streams.event_store.audit_log import audit
from streams.evidence.sealed_session import GuardedEvidence, keys_file, load_sealed, open_keys
from streams.evidence.trust import trust_file, trusted_keys
from streams.keys.folder import key_folder
from streams.roles.drivers import (
    KEYS,
    Installation,
    absolute,
    copy_at,
    mode_at,
    new_file,
    read_bounded,
    write_copy,
)

STDOUT = "-"


@dataclass(frozen=True, slots=True)
class Origin:
    """What is exported. `data`: of the installation that it lies in; None: a copy."""

    name: str
    evidence: Evidence
    uid: bytes = b""
    keys: SessionKeys | None = None
    keys_json: bytes | None = None
    data: DataDir | None = None


def export(
    target: Annotated[
        str, typer.Argument(metavar="SESSION|DIR", help="A session, or an evidence copy.")
    ] = "",
    evidence: Annotated[
        Path | None, typer.Option("--evidence", metavar="DIR", readable=False, help="Write an evidence copy.")
    ] = None,
    with_keys: Annotated[
        bool, typer.Option("--with-keys", help="Whoever holds the copy may watch it.")
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
    as_json: JsonFlag = False,
) -> int:
    """Write out a recording, its evidence, or the trust file."""
    if bool(target) != bool(evidence or out) or not (target or trust_to):
        raise Misuse(
            "say what to export, and where to",
            code="usage",
            hint="lucid export SESSION --out FILE, lucid export SESSION --evidence DIR, "
            "or lucid export --trust-file FILE",
        )
    if out == STDOUT and (evidence or as_json):
        raise Misuse("with --out - the bytes are the only thing on stdout", code="usage")
    if out == STDOUT:
        output.must_have_arrived()
    told: dict[str, object] = {}
    if trust_to is not None:
        told |= _export_trust(trust_to, root_key, new_root, as_json)
    if target:
        origin = _origin(target, keys, bool(out) or with_keys)
        told["session"] = origin.name
        if evidence is not None:
            told |= _export_evidence(origin, evidence, with_keys, as_json)
        if out:
            told |= _export_original(origin, out, track, part, as_json)
    if as_json:
        output.emit(told)
    return 0


def _origin(target: str, keys: Path | None, wants_keys: bool) -> Origin:
    path = Path(target)
    beside = path / KEYS
    if not is_copy(target, complete=not wants_keys or keys is not None or bool(mode_at(beside))):
        with named(target, _keys_needed(beside)):
            return run(_from_here(target, wants_keys))
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


async def _from_here(name: str, wants_keys: bool) -> Origin:
    here = Installation.here()
    async with attached() as jet:
        found = await load_sealed(jet, here.data, name)
        if not wants_keys:
            return Origin(name, found.evidence, found.session.uid, data=here.data)
        held = await open_keys(here.key_files, here.keyring, found.session)
    raw = keys_file(found.session, held.keys)
    evidence = GuardedEvidence(found.evidence, held)
    return Origin(name, evidence, found.session.uid, held.keys, raw, here.data)


def _export_evidence(origin: Origin, target: Path, with_keys: bool, as_json: bool) -> dict[str, object]:
    if with_keys and origin.data is not None:
        audit(origin.data, "key_exported", origin.name, origin.uid, to=str(absolute(target)))
    written = write_copy(origin.evidence, target, keys=origin.keys_json if with_keys else None)
    if not as_json:
        keys = ", with its key: whoever holds it may watch" if with_keys else ""
        output.say(f"{origin.name}: {size_text(written)} in {output.home(target)}{keys}")
        output.note(f"verify it: lucid verify {output.home(target)} --trust FILE")
    return {"evidence": str(target), "bytes": written, "with_keys": with_keys}


def _export_original(
    origin: Origin, out: str, track: int, part: int | None, as_json: bool
) -> dict[str, object]:
    assert origin.keys is not None
    manifest = sealed_manifest(origin.evidence)
    plain = original(origin.evidence, manifest, origin.keys, track=track, part=part)
    if origin.data is not None:
        audit(origin.data, "recording_exported", origin.name, origin.uid, to=out, track=track)
    if out == STDOUT:
        size, digest = _pour(_while_read(plain), sys.stdout.buffer)
        output.must_have_arrived()
    else:
        with new_file(Path(out)) as file:
            size, digest = _pour(plain, file)
    _tell_original(origin.name, manifest, out, size, digest, track, part, as_json)
    missing = lacks(manifest, track=track, part=part)
    return {"out": out, "out_bytes": size, "sha256": digest, "track": track, "fragments_missing": missing}


def _while_read(plain: Iterator[bytes]) -> Iterator[bytes]:
    """The pieces, as long as stdout takes them. Raises NoSpace (disk.full), Unavailable (output.*)."""
    for piece in plain:
        yield piece
        output.must_have_arrived()


def _pour(plain: Iterator[bytes], file: BinaryIO) -> tuple[int, str]:
    """Write everything; bytes and SHA-256 (hex) of it."""
    digest, size = hashlib.sha256(), 0
    for piece in plain:
        digest.update(piece)
        size += len(piece)
        rest = memoryview(piece)
        while rest:  # unbuffered output may take less than it is given
            rest = rest[file.write(rest) :]
    return size, digest.hexdigest()


def _tell_original(
    name: str,
    manifest: Manifest,
    out: str,
    size: int,
    digest: str,
    track: int,
    part: int | None,
    as_json: bool,
) -> None:
    missing, numbers = lacks(manifest, track=track, part=part), parts(manifest, track=track)
    if missing:
        output.note(
            f"NOTE {output.count_of(missing, 'fragment')} of it are missing, as the manifest declares"
        )
    if part is None and len(numbers) > 1:
        output.note(f"NOTE {len(numbers)} parts, one after the other; --part N writes one of them")
    if manifest.end != "final":
        output.note(f"NOTE the installation ended it: {manifest.end}, {manifest.reason}")
    output.note(f"{name}: {size_text(size)} of track {track}; SHA-256:")
    if out == STDOUT:
        output.note(digest)
    elif not as_json:
        output.say(f"{digest}  {out}")  # the form that sha256sum --check reads


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
    said = TrustFile.within(dsse.parse(raw, dsse.TRUST))
    root = dsse.fingerprint(said.root).hex()
    if not as_json:
        output.say(f"{output.home(target)}: {output.count_of(len(said.keys), 'key')}, signed by the root key")
        output.say(output.digits(root, len(root)))
        output.note("give this fingerprint to whoever verifies, by another way than the file")
    return {"trust_file": str(target), "root": root, "serial": said.serial, "keys": len(said.keys)}


async def _made_trust(serial: int, root_key: Path | None, new_root: bool) -> bytes:
    here = Installation.here()
    signers = here.signers
    async with attached() as jet:
        keys = await trusted_keys(jet, signers)
        folder = key_folder(here, jet)
        await folder.check()
        root = signers.new_root() if new_root else signers.root(root_key)
        await folder.note()
    return trust_file(keys, root, serial)
