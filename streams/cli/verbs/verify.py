"""The verb `lucid verify`: checks that evidence is still as it was recorded, sealed and signed.

1. A copy and a tombstone need only a trust file: no server, no installation.
2. A session of this installation is verified in place, with the installation's trust file unless another is
   named.
3. Exit status as format.md §13 says: 0 true, 2 usage or trust file, 3 false, 9 signer not listed.
"""

import stat
from pathlib import Path
from typing import Annotated

import typer

from handlers.crypto.trust import Trust, open_trust
from handlers.verify.session import verify as verify_evidence
from handlers.verify.tombstone import is_tombstone, verify_tombstone
from schemas.errors import Misuse, NotFound, Unreadable
from schemas.format import dsse
from schemas.format.trust import MAX_KEYS_BYTES
from schemas.ports.evidence import Evidence
from schemas.subjects import SESSION_ID
from streams.cli import output, verdict
from streams.cli.attach import attached, is_copy, looking_up, run
from streams.cli.output import JsonFlag
from streams.evidence.sealed_session import GuardedEvidence, keys_file, load_sealed, open_keys
from streams.evidence.trust import own_trust
from streams.roles.drivers import KEYS, Installation, copy_at, mode_at, read_bounded, unreadable
from streams.scheduling.clock import now_us

FINGERPRINT_DIGITS = 64
HERE = "this installation"
"""The name of the installation's own trust file."""
RESTORED = {"chunk.missing", "chunk.length", "chunk.digest", "chunk.header"}
"""Findings that a replay can mend."""
NAME_A_FOLDER = "name the folder that holds manifests/ and chunks/, or a tombstone"

TrustOption = Annotated[
    Path | None, typer.Option("--trust", metavar="FILE", readable=False, help="The keys that are trusted.")
]
RootKey = Annotated[
    str | None,
    typer.Option("--root", metavar="FINGERPRINT", help="Root key that must have signed the trust file."),
]


def verify(
    target: Annotated[str, typer.Argument(metavar="DIR|SESSION", help="An evidence copy, or a session.")],
    trust: TrustOption = None,
    root: RootKey = None,
    keys: Annotated[
        Path | None,
        typer.Option("--keys", metavar="FILE", readable=False, help="The data key: check the contents, too."),
    ] = None,
    open_contents: Annotated[
        bool, typer.Option("--open", help="Check a session's contents with its own key.")
    ] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Treat gaps and other notes as false.")] = False,
    as_json: JsonFlag = False,
) -> int:
    """Check that nothing changed since a session was sealed."""
    path = Path(target)
    if not target:
        raise Misuse(
            "an empty name is no folder and no session", code="usage", hint="see lucid verify --help"
        )
    if root is not None and trust is None:
        raise Misuse("--root needs a trust file, and none is named", code="usage", hint="give --trust FILE")
    mode = mode_at(path)
    copied = is_copy(target, complete=trust is not None)
    is_file = bool(mode) and not stat.S_ISDIR(mode)
    if trust is None and SESSION_ID.fullmatch(target):
        is_file = False  # a session of this name wins over a file, as over a folder
    if open_contents and (copied or is_file):
        raise Misuse(
            f"{path} is a copy here, and --open is for a session of this installation",
            code="usage",
            hint="give --keys FILE",
        )
    if is_file:
        return _tombstone(path, mode, trust, root, strict, as_json)
    if copied:
        evidence: Evidence = copy_at(path)
        hint = ""
        opened = load_trust(_needed(trust, path), root)
        key_bytes = read_keys(keys) if keys else read_beside(path / KEYS)
    else:
        with looking_up(target, trust_needed(path)):
            evidence, opened, key_bytes = run(_here(target, trust, root, keys, open_contents))
        hint = f"restore it: lucid replay {target}"
        if path.is_dir():
            output.note(f"NOTE the session, not the folder here: that is lucid verify ./{path} --trust FILE")
    try:
        report = verify_evidence(evidence, opened, keys=key_bytes, strict=strict)
    except Unreadable as error:
        error.hint = error.hint or hint
        raise
    if not any(finding.code in RESTORED for finding in report.findings):
        hint = ""
    if as_json:
        output.emit(verdict.as_json(report))
        return report.exit_code
    if trust is not None and root is None:
        _print_root(opened.root)
    output.say(*verdict.lines(report, path.name or target, trust.name if trust else HERE, hint))
    return report.exit_code


def _tombstone(
    path: Path, mode: int, trust: Path | None, root: str | None, strict: bool, as_json: bool
) -> int:
    raw = b""
    if stat.S_ISREG(mode):
        try:
            raw = read_bounded(path, dsse.MAX_BYTES[dsse.TOMBSTONE], links=True) or b""
        except OSError as error:
            raise unreadable(path, error) from None
    if not is_tombstone(raw):
        raise Misuse(
            f"{path} is neither an evidence copy nor a tombstone", code="evidence.none", hint=NAME_A_FOLDER
        )
    trust = _needed(trust, path)
    opened = load_trust(trust, root)
    report, tombstone = verify_tombstone(raw, opened, strict=strict)
    if root is None and not as_json:
        _print_root(opened.root)
    if as_json:
        signed = {} if tombstone is None else {"tombstone": tombstone.model_dump()}
        output.emit(verdict.as_json(report) | signed)
    elif tombstone is None or report.findings:
        output.say(*verdict.lines(report, path.name, trust.name))
    else:
        output.say(*verdict.tombstone_lines(report, tombstone, trust.name))
    return report.exit_code


def _needed(trust: Path | None, path: Path) -> Path:
    if trust is None:
        raise trust_needed(path)
    return trust


def trust_needed(path: Path) -> Misuse:
    return Misuse(
        "a trust file is needed: a key that lies beside evidence is never trusted",
        code="trust.absent",
        hint=f"lucid verify {path} --trust FILE",
    )


async def _here(
    name: str, trust: Path | None, root: str | None, keys: Path | None, open_contents: bool
) -> tuple[Evidence, Trust, bytes | None]:
    here = Installation.here()
    async with attached() as jet:
        found = await load_sealed(jet, here.data, name)
        opened = load_trust(trust, root) if trust else await own_trust(jet, here.signers)
        key_bytes = read_keys(keys) if keys else None
        if open_contents and key_bytes is None:
            held = await open_keys(here.key_files, here.keyring, found.session)
            return GuardedEvidence(found.evidence, held), opened, keys_file(found.session, held.keys)
    return found.evidence, opened, key_bytes


def load_trust(path: Path, root: str | None) -> Trust:
    """The trust file at `path`. Raises Misuse (trust.*), also if it does not exist."""
    wanted = _fingerprint(root) if root is not None else None
    try:
        raw = read_bounded(path, dsse.MAX_BYTES[dsse.TRUST], links=True)
    except OSError as error:
        raise Misuse(f"{path} cannot be read: {error.strerror}", code="trust.absent") from None
    if raw is None:
        raise Misuse(
            f"{path} is not there", code="trust.absent", hint="lucid export --trust-file FILE, or ask for it"
        )
    return open_trust(raw, now_us=now_us(), root=wanted)


def read_keys(path: Path) -> bytes:
    """The bytes of a keys file that was named. Raises NotFound (keys.absent), Unreadable."""
    raw = _keys(path, links=True)
    if raw is None:
        raise NotFound(f"{path} is not there", code="keys.absent")
    return raw


def read_beside(path: Path) -> bytes | None:
    """The bytes of a copy's own keys.json; None: it has none. Raises Unreadable."""
    return _keys(path, links=False)


def _keys(path: Path, *, links: bool) -> bytes | None:
    try:
        return read_bounded(path, MAX_KEYS_BYTES, links=links)
    except OSError as error:
        raise unreadable(path, error, "keys.unreadable") from None


def _fingerprint(text: str) -> bytes:
    """A fingerprint as people write it: 64 hex digits, in groups or not."""
    digits = "".join(text.split()).lower()
    if len(digits) == FINGERPRINT_DIGITS:
        try:
            return bytes.fromhex(digits)
        except ValueError:
            pass
    raise Misuse(
        f"--root {text[:80]!r} is no fingerprint: {FINGERPRINT_DIGITS} hex digits are wanted",
        code="trust.root",
    )


def _print_root(root: bytes) -> None:
    """Write the whole fingerprint, for comparison with one from another source."""
    output.note("root key of the trust file (compare it, or give it with --root):")
    output.note(output.digits(root, FINGERPRINT_DIGITS))
