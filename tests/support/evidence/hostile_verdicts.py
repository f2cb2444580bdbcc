"""Asks both verifiers about hostile evidence, and judges their answers; for tests.

`judge` says what is wrong: a crash, a check that broke off, two verifiers of two minds, or a verdict that is
not false on something else than the base, but in members that the report says rest on the signer's word.
"""

import contextlib
import io
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from handlers.crypto.trust import open_trust
from handlers.verify.bindings import BINDINGS, CONTENTS
from handlers.verify.report import EXIT_FALSE, Report
from handlers.verify.session import verify
from schemas.errors import Denied, Misuse, outcome
from tests.support.evidence.hostile_drafts import Draft


def ours(draft: Draft) -> tuple[int, Report | None]:
    """Exit status and report; a refusal without a verdict has none."""
    try:
        trusted = open_trust(draft.trust_file(), now_us=1)
        report = verify(draft.evidence(), trusted, keys=draft.keys)
    except (Misuse, Denied) as error:
        return outcome(error).exit_code, None
    return report.exit_code, report


class Reader:
    """The independent reader, on a folder in memory where there is one."""

    def __init__(self, reader: ModuleType) -> None:
        self._reader = reader
        shared = Path("/dev/shm")
        self._folder = tempfile.TemporaryDirectory(dir=shared if shared.is_dir() else None)
        self._root = Path(self._folder.name)
        self._written: dict[str, bytes] = {}
        for name in ("manifests", "chunks"):
            (self._root / "copy" / name).mkdir(parents=True)
        self.said = ""

    def read(self, draft: Draft) -> int:
        held = draft.evidence()
        files = {f"copy/manifests/{number}.dsse.json": raw for number, raw in held.manifests.items()}
        files |= {f"copy/chunks/{index:010}": raw for index, raw in held.chunks.items()}
        files |= {"copy/history.ndjson": b"".join(held.lines or ()), "trust.json": draft.trust_file()}
        if draft.keys is not None:
            files["copy/keys.json"] = draft.keys
        for name in self._written.keys() - files.keys():
            (self._root / name).unlink()
        for name, raw in files.items():
            if self._written.get(name) != raw:
                (self._root / name).write_bytes(raw)
        self._written = files
        out = io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
            code = int(
                self._reader.main(
                    [str(self._root / "copy"), "--trust", str(self._root / "trust.json")], now_us=1
                )
            )
        self.said = out.getvalue()
        return code

    def close(self) -> None:
        self._folder.cleanup()


def judge(base: Draft, draft: Draft, reader: Reader) -> str:
    """What is wrong with the answers; empty: nothing."""
    code, report = ours(draft)
    if report is not None and any(found.code == "verify.internal" for found in report.findings):
        return f"a check broke off: {[f for f in report.findings if f.code == 'verify.internal']}"
    theirs = reader.read(draft)
    if code != theirs:
        return f"ours says {code}, theirs {theirs}: {report and report.findings[:4]} / {reader.said[-600:]}"
    if report is None or code == EXIT_FALSE:
        return ""
    wrong = sorted(set(unexplained(base, draft, report)))
    return f"says {code}, although {wrong} are not the base's" if wrong else ""


def unexplained(base: Draft, draft: Draft, report: Report) -> Iterator[str]:
    """What differs from the base, and does not rest on the signer's word."""
    told = report.summary.on_signers_word
    if draft.manifests != base.manifests[: len(draft.manifests)] and len(base.manifests) != len(
        draft.manifests
    ):
        yield "seals"  # but the last one may be taken away: what is left is true by itself
    by_platform = any(note.code == "end.not_final" for note in report.notes)
    cut_off = by_platform and draft.manifests[-1]["ending"] != base.manifests[-1]["ending"]
    for known, now in zip(base.manifests, draft.manifests, strict=False):
        for name in differences(known, now):
            stem = name.split(".")[0]
            if name in told or stem in told or BINDINGS.get(name) in ("form", "history", "tree"):
                continue  # what the tree binds is looked at below: the files
            if BINDINGS.get(name) == CONTENTS and CONTENTS in told:
                continue
            if cut_off and stem in ("chunks", "parts", "tracks", "gaps"):
                continue  # the signer's own end says so, and is a note
            yield name
    if CONTENTS not in told and not cut_off and base.chunks != draft.chunks:
        yield "files"
    if not draft.lines or asked(base.lines[0]) != asked(draft.lines[0]):
        yield "request"


def asked(line: bytes) -> list[Any]:
    event = json.loads(line)
    names = ("session", "host", "host_key", "counter", "prev_genesis", "settings", "request")
    return [event.get(name) for name in names]


def differences(known: Any, now: Any, path: str = "") -> Iterator[str]:
    """Names of the members in which two manifests differ."""
    if isinstance(known, dict) and isinstance(now, dict):
        for name in known.keys() | now.keys():
            yield from differences(known.get(name), now.get(name), f"{path}.{name}".lstrip("."))
    elif isinstance(known, list) and isinstance(now, list):
        if len(known) != len(now):
            yield path
        for one, other in zip(known, now, strict=False):
            yield from differences(one, other, path)
    elif known != now:
        yield path
