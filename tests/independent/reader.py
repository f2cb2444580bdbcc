"""An independent reader of evidence copies: verifies, and with the data key decrypts.

    python tests/independent/reader.py DIR --trust FILE [--root FINGERPRINT] [--keys FILE]
                                       [--out FILE] [--track N] [--strict]

1. Written from docs/format.md alone; it shares no line with the product.
2. Hostile files end in a finding with code and place, never in a traceback.
3. `--out` is written only when nothing was found false.

Exit codes (docs/format.md §13), the first that fits: 2 usage, no evidence copy, or trust file; 4 a file
cannot be read; 6 the keys file does not fit; 3 false; 9 signer or host not listed; 0 true.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import re
import stat
import sys
import time
from pathlib import Path
from typing import Any

import reader_shapes as shapes
from reader_bytes import MAX_PLAIN, SEALED_EXTRA, read_chunk_header
from reader_crypto import Bad, dek_id, fingerprint, h
from reader_history import Silences, check_lines, on_signers_word, read_lines
from reader_keyed import Keyed, open_chunk
from reader_keyless import Keyless, Report, is_lost

MAX_MANIFEST, MAX_HISTORY, MAX_TRUST, MAX_KEYS = 512 << 20, 1 << 30, 16 << 20, 4 << 10
SEAL_NAME = re.compile(r"[1-9][0-9]{0,8}\.dsse\.json")
SEAL_FORM, CHUNK_FORM, NOTHING = re.compile(r"[0-9]+\.dsse\.json"), re.compile(r"[0-9]+"), re.compile(r"(?!)")
LAYOUT = {"manifests", "chunks", "history.ndjson", "keys.json"}
Json = dict[str, Any]


class NoVerdict(Exception):
    """Nothing can be said."""

    exit_code = 2


class Usage(NoVerdict):
    """The command, or the trust file, cannot be used; or there is no evidence copy."""


class Unreadable(NoVerdict):
    """A file is there and cannot be read, or a named one is not there."""

    exit_code = 4


class WrongKeys(NoVerdict):
    """The keys file is malformed, or not of this session."""

    exit_code = 6


def say(text: str) -> None:
    """Print one line; whatever a hostile file holds, it stays one line of ASCII."""
    print(text.encode("unicode_escape").decode())


def complain(text: str, exit_code: int = 2) -> int:
    print(f"reader: {text}".encode("unicode_escape").decode(), file=sys.stderr)
    return exit_code


def read_bounded(path: Path, limit: int, code: str) -> bytes:
    """Return a plain file's bytes; raises Bad `code` when absent or above `limit`, else Unreadable."""
    try:
        status = path.lstat()
        if not stat.S_ISREG(status.st_mode):
            raise Unreadable(f"{path.name} is no plain file")
        if status.st_size > limit:
            raise Bad(code, f"{path.name} is longer than {limit} bytes")
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except FileNotFoundError:
        raise Bad(code, f"{path.name} is not there") from None
    except OSError as error:
        raise Unreadable(f"{path.name} cannot be read: {error.strerror}") from None
    if len(data) > limit:
        raise Bad(code, f"{path.name} is longer than {limit} bytes")
    return data


def load_trust(path: Path, root: str | None, now_us: int) -> Json:
    """Return the trust file's payload; raises Usage."""
    try:
        raw = read_bounded(path, MAX_TRUST, "trust.file")
        trust = shapes.open_envelope(
            raw, shapes.TRUST_TYPE, shapes.TRUST, lambda value: value["root"], "trust"
        )
    except (Bad, Unreadable) as bad:
        raise Usage(str(bad)) from None
    if root is not None and fingerprint(bytes.fromhex(trust["root"])) != root:
        raise Usage("the trust file is not of the given root [trust.root]")
    if now_us >= trust["expires_us"]:
        raise Usage("the trust file is expired [trust.expired]")
    return trust


def is_listed(trust: Json, key: str, role: str, at_us: int, name: str | None = None) -> bool:
    """name: under which it must be listed; None: any."""
    own = [entry for entry in trust["keys"] if (entry["key"], entry["role"]) == (key, role)]
    named = [entry for entry in own if name is None or entry["name"] == name]
    valid = any(entry["from_us"] <= at_us < entry["until_us"] for entry in named)
    return valid and all(entry["revoked_us"] == 0 for entry in own)


def names_in(folder: Path) -> set[str]:
    try:
        if not stat.S_ISDIR(folder.lstat().st_mode):
            raise Unreadable(f"{folder.name} is no folder")
        return {item.name for item in folder.iterdir()}
    except FileNotFoundError:
        return set()
    except OSError as error:
        raise Unreadable(f"{folder.name} cannot be read: {error.strerror}") from None


def judge_others(place: str, names: set[str], form: re.Pattern[str], code: str, report: Report) -> None:
    """Tell of the names that the layout does not give: those that look like evidence are findings."""
    for name in sorted(names):
        if form.fullmatch(name):
            report.find(code, f"{place}{name}", "no file of this name belongs here")
        else:
            report.note("unsealed", f"{place}{name}: nobody sealed this file")


def load_manifests(folder: Path, report: Report) -> list[tuple[Json, bytes]]:
    """Return (payload, envelope bytes) of every seal; a seal that is not wholly strict is left out."""
    names = names_in(folder)
    seal_names = {name for name in names if SEAL_NAME.fullmatch(name)}
    if not seal_names:
        raise Usage(f"{folder.parent} is no evidence copy: it holds no manifest")
    numbers = sorted(int(name[:-10]) for name in seal_names)
    judge_others("manifests/", names - seal_names, SEAL_FORM, "manifest.unnamed", report)
    judge_others("", names_in(folder.parent) - LAYOUT, NOTHING, "", report)
    if numbers != list(range(1, len(numbers) + 1)):
        report.find("manifest.missing", "manifests", "the seals are not 1, 2, 3 …")
    seals = []
    for number in numbers:
        name = f"{number}.dsse.json"
        place = f"manifests/{name}"
        try:
            raw = read_bounded(folder / name, MAX_MANIFEST, "manifest.missing")
            key_of = lambda value: value["signer"]["key"]  # noqa: E731
            payload = shapes.open_envelope(raw, shapes.MANIFEST_TYPE, shapes.MANIFEST, key_of, "manifest")
        except Bad as bad:
            report.find(bad.code, place, bad.text)
            continue
        report.need(payload["seal_no"] == number, "manifest.seal_no", place, "the seal has another number")
        seals.append((payload, raw))
    return seals


def check_links(seals: list[tuple[Json, bytes]], report: Report) -> None:
    for (old, raw), (new, _) in itertools.pairwise(seals):
        place = f"seal {new['seal_no']}"
        report.need(
            new["prev_manifest"] == h(raw).hex(), "manifest.link", place, "it follows another manifest"
        )
        kept = ("session", "uid", "dek_id", "settings", "host", "started_us")
        same = all(new[name] == old[name] for name in kept)
        report.need(same, "manifest.changed", place, f"one of {', '.join(kept)} is another than before")
        ending = [shapes.unbase64(seal["ending"], "ending.shape")[:-64] for seal in (old, new)]
        report.need(ending[0] == ending[1], "manifest.changed", place, "the ending is another than before")


def check_files(folder: Path, manifest: Json, report: Report) -> None:
    entries = manifest["chunks"] + manifest["index"]
    wanted = {f"{entry['index']:010}": entry for entry in entries if not is_lost(entry)}
    judge_others("chunks/", names_in(folder) - set(wanted), CHUNK_FORM, "chunk.unnamed", report)
    for name, entry in wanted.items():
        try:
            sealed = read_bounded(folder / name, MAX_PLAIN + SEALED_EXTRA, "chunk.missing")
            _check_chunk(sealed, entry, manifest)
        except Bad as bad:
            report.find(bad.code, f"chunk {name}", bad.text)


def _check_chunk(sealed: bytes, entry: Json, manifest: Json) -> None:
    if h(sealed).hex() != entry["digest"] or len(sealed) != entry["sealed"]:
        raise Bad("chunk.digest", "the file is not what was sealed")
    header, settings = read_chunk_header(sealed), manifest["settings"]
    found = (header.uid.hex(), header.dek_id.hex(), header.suite, header.track, header.part, header.index)
    named = (
        manifest["uid"],
        manifest["dek_id"],
        settings["suite"],
        entry["track"],
        entry["part"],
        entry["index"],
    )
    lengths = (header.offset, header.plain) == (entry["offset"], entry["plain"])
    codec = header.codec == entry["codec"] if "codec" in entry else header.codec in (0, settings["codec"])
    if found != named or not lengths or not codec:
        raise Bad("chunk.header", "its header is not what the manifest says")


def check_history(path: Path, manifests: list[Json], report: Report) -> int:
    """Check the history; return the number of lines after the last seal's."""
    try:
        lines, events = read_lines(read_bounded(path, MAX_HISTORY, "history.missing"))
    except Bad as bad:
        report.find(bad.code, "history.ndjson", bad.text)
        return 0
    return check_lines(lines, events, manifests, report)


def load_keys(path: Path) -> Json:
    """Return what the keys file says; raises WrongKeys, Unreadable."""
    try:
        keys = shapes.parse_canonical(read_bounded(path, MAX_KEYS, "keys.file"), "keys.json")
        shapes.KEYS(keys, "keys")
    except Bad as bad:
        raise WrongKeys(str(bad)) from None
    return dict(keys)


def fit_keys(keys: Json, manifest: Json, manifests_hold: bool) -> bytes | None:
    """Return the data key; None where a false manifest has another. Raises WrongKeys."""
    dek = bytes.fromhex(keys["dek"])
    session = keys["uid"] == manifest["uid"]
    if session and keys["dek_id"] == manifest["dek_id"] == dek_id(dek).hex():
        return dek
    if manifests_hold:
        raise WrongKeys(f"the keys file is of another {'key' if session else 'session'} [keys.unfit]")
    return None


def note_losses(manifest: Json, report: Report) -> None:
    for gap in manifest["gaps"]:
        missing = gap["last_seq"] - gap["first_seq"] + 1
        said = f"track {gap['track']}: {missing} fragments from {gap['first_seq']} missing"
        report.note("gap", f"{said}, by {gap['by']} ({gap['reason']})")
    for chunk in manifest["chunks"]:
        if is_lost(chunk):
            report.note("chunk.lost", f"chunk {chunk['index']:010} was lost")
    if manifest["end"] != "final":
        report.note("ending", f"the session was ended by the installation: {manifest['end']}")
    for item in manifest["equivocations"]:
        report.note("equivocation", f"the host signed two fragments {item['track']}/{item['seq']}")


def verify(folder: Path, keys: Path | None, report: Report) -> tuple[list[Json], Keyed | None]:
    """Fill `report`; return all seals that could be read, and the open evidence when keys were given."""
    held = None if keys is None else load_keys(keys)
    seals = load_manifests(folder / "manifests", report)
    manifests = [manifest for manifest, _ in seals]
    for manifest in manifests:
        Keyless(manifest, report).check()
    check_links(seals, report)
    manifests_hold = not report.findings
    later = check_history(folder / "history.ndjson", manifests, report)
    if later > 0:
        say(f"INFO {later} later lines of the history are not covered by a seal")
    if not seals:
        return [], None
    last, keyed, silences = manifests[-1], None, Silences()
    dek = None if held is None else fit_keys(held, last, manifests_hold)
    check_files(folder / "chunks", last, report)
    if dek is not None:
        try:
            keyed = Keyed(last, dek, lambda index: _read_chunk(folder, index), report)
            keyed.check(silences)
        except Bad as bad:
            report.find(bad.code, "keys", bad.text)
    silences.chunks(last, within=keyed is None)
    note_losses(last, report)
    silences.note(report)
    say(f"INFO on the signer's word: {', '.join(on_signers_word(last, keyed is not None))}")
    return manifests, keyed


def _read_chunk(folder: Path, index: int) -> bytes:
    return read_bounded(folder / "chunks" / f"{index:010}", MAX_PLAIN + SEALED_EXTRA, "chunk.missing")


def write_out(path: Path, track: int, keyed: Keyed) -> None:
    digest, size = hashlib.sha256(), 0
    with path.open("wb") as out:
        for index in keyed.plain_of(track):
            plain = open_chunk(keyed.dek, keyed.read(index))
            digest.update(plain)
            size += len(plain)
            out.write(plain)
    say(f"INFO {size} bytes of track {track} written, SHA-256 {digest.hexdigest()}")


def unlisted(seals: list[Json], trust: Json) -> list[tuple[int, str]]:
    """Return (seal, role) of everybody who does not count."""
    found = []
    for seal in seals:
        host = seal["host"]
        if not is_listed(trust, seal["signer"]["key"], "signer", seal["sealed_us"]):
            found.append((seal["seal_no"], "signer"))
        if not is_listed(trust, host["key"], "host", seal["started_us"], host["name"]):
            found.append((seal["seal_no"], "host"))
    return found


def arguments(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Verify and decrypt an evidence copy.")
    parser.add_argument("folder", type=Path, metavar="DIR")
    parser.add_argument("--trust", type=Path, required=True, metavar="FILE")
    parser.add_argument("--root", metavar="FINGERPRINT")
    parser.add_argument("--keys", type=Path, metavar="FILE", help="default: DIR/keys.json when it is there")
    parser.add_argument("--out", type=Path, metavar="FILE")
    parser.add_argument("--track", type=int, default=0, choices=(0, 1))
    parser.add_argument("--strict", action="store_true", help="notes are findings")
    options = parser.parse_args(argv)
    if not options.folder.exists():
        raise Unreadable(f"{options.folder} is not there")
    if not options.folder.is_dir():
        raise Usage(f"{options.folder} is no folder")
    if options.keys is not None and not options.keys.exists():
        raise Unreadable(f"{options.keys} is not there")
    inside = options.folder / "keys.json"
    if options.keys is None and (inside.exists() or inside.is_symlink()):
        options.keys = inside
    if options.out is not None and options.keys is None:
        raise Usage("--out needs the data key (--keys)")
    return options


def main(argv: list[str], now_us: int | None = None) -> int:
    """Return the exit code; now_us: the clock, for the trust file's expiry."""
    report = Report()
    try:
        options = arguments(argv)
        trust = load_trust(options.trust, options.root, now_us or time.time_ns() // 1000)
        if options.root is None:
            say(f"INFO trust root {fingerprint(bytes.fromhex(trust['root']))}")
        seals, keyed = verify(options.folder, options.keys, report)
    except NoVerdict as error:
        return complain(str(error), error.exit_code)
    except SystemExit as error:
        return int(error.code or 0)
    for code, text in report.notes:
        say(f"NOTE {text} [{code}]")
        if options.strict:
            report.find(code, "--strict", text)
    for code, place, text in report.findings:
        say(f"FALSE {place}: {text} [{code}]")
    if report.findings:
        return 3
    if options.out is not None and keyed is not None:
        try:
            write_out(options.out, options.track, keyed)
        except OSError as error:
            return complain(f"{options.out} cannot be written: {error.strerror}")
    unknown = unlisted(seals, trust)
    for seal_no, role in unknown:
        say(f"UNKNOWN seal {seal_no}: its {role} is not in the trust file [{role}.unlisted]")
    if not unknown:
        say(f"TRUE {seals[-1]['session']}: seal {seals[-1]['seal_no']}, root {seals[-1]['merkle']['root']}")
    return 9 if unknown else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
