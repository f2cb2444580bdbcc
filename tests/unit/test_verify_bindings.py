"""Each member of a manifest is bound, or stands in the list of what rests on the signer's word."""

import base64
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import BaseModel

from handlers.verify.bindings import BINDINGS, CONTENTS
from schemas.errors import Denied
from schemas.events.commands import CREATE_PREFIX, create_request
from schemas.events.session import SessionSettings
from schemas.format import fragment
from schemas.format.digest import h
from schemas.format.jcs import jcs
from schemas.format.manifest import Manifest
from tests.support.evidence.evidence_case import Case, another, leaves, put
from tests.support.evidence.recorded_session import HOST, SIGNER, RecordedSession

BASES: dict[str, Callable[[], RecordedSession]] = {
    "plain": lambda: RecordedSession(fragments=6),
    "long, ended by the platform": lambda: RecordedSession(fragments=24, dropped={5}, end=True),
    "a chunk lost": lambda: RecordedSession(fragments=6, lost=(1,)),
    "two fragments for one place": lambda: RecordedSession(fragments=6, twice=True),
}
DOCUMENT = Path(__file__).parents[2] / "docs" / "format.md"


def members(model: Any, above: str = "") -> Iterator[str]:
    """Every member by its dotted name; items of a list have the list's."""
    fields = model.model_fields if issubclass(model, BaseModel) else model.__pydantic_fields__
    for name, said in fields.items():
        path = f"{above}{name}"
        inner = [kind for kind in _kinds(said.annotation) if hasattr(kind, "__pydantic_validator__")]
        if inner:
            yield from members(inner[0], f"{path}.")
        else:
            yield path


def _kinds(annotation: Any) -> Iterator[type]:
    if isinstance(annotation, type):
        yield annotation
    for argument in get_args(annotation):
        yield from _kinds(argument)


def documented() -> dict[str, str]:
    """The table of docs/format.md: each member, and what vouches for it."""
    text = DOCUMENT.read_text()
    section = text[text.index("### What vouches for each member") :].split("\n### ")[0]
    found: dict[str, str] = {}
    for names, by in re.findall(r"^\| (.+?) \| ([a-z]+) \| .*\|$", section, re.MULTILINE):
        for name in re.findall(r"[a-z_.]+(?:\{[^}]*\})?", names):
            stem, _, inner = name.partition("{")
            for last in inner.rstrip("}").split(", "):
                found[stem + last] = by
    del found["member"]
    return found


def test_every_member_has_its_row_here_and_in_the_document() -> None:
    """Breaks: a new member of the manifest is believed, and nobody wrote down why."""
    named = set(members(Manifest))
    assert set(BINDINGS) == named
    assert documented() == BINDINGS


def named(path: tuple[Any, ...]) -> str:
    return ".".join(step for step in path if isinstance(step, str))


def lie(case: Case, path: tuple[Any, ...]) -> Case:
    """Change one member, then everything that a signer can make fit it."""
    by_platform = case.manifest["end"] != "final"
    case.resign(lambda manifest: put(manifest, path, another), mended=path[0] not in ("merkle", "totals"))
    if by_platform and path[0] in ("end", "reason", "ended_us"):
        case.resign(own_ending)
    return case if path[0] == "lifecycle" else case.retell()


def own_ending(manifest: dict[str, Any]) -> None:
    """Sign an end that says what the manifest says."""
    whole = fragment.parse(base64.b64decode(manifest["ending"]))
    said = json.loads(bytes(whole.body)) | {"end": manifest["end"], "reason": manifest["reason"]}
    header = fragment.Header.parse(whole.raw_header)
    body = jcs(said)
    raw = fragment.Header(
        header.kind, 0, 0, 0, header.uid, 0, manifest["ended_us"], len(body), header.prev_head
    ).pack()
    signature = SIGNER.sign(fragment.END_SIGNED + fragment.head(raw, h(body)))
    manifest["ending"] = base64.b64encode(raw + body + signature).decode()


@pytest.mark.parametrize("base", BASES)
def test_a_member_is_bound_or_stands_in_the_list(base: str) -> None:
    """Breaks: a signer changes what everybody takes for proven, and verify calls it true."""
    true_case = Case(BASES[base]())
    honest = {keys: true_case.verify(keys=keys) for keys in (False, True)}
    assert {report.exit_code for report in honest.values()} == {0}
    for path in leaves(true_case.manifest):
        name = named(path)
        case = lie(true_case.again(), path)
        for keys in (False, True):
            if name == "dek_id" and keys:
                with pytest.raises(Denied):  # no verdict: the key is another one's
                    case.verify()
                continue
            report = case.verify(keys=keys)
            told = report.summary.on_signers_word
            if not report.findings:
                is_word = name in told or (CONTENTS in told and BINDINGS[name] == CONTENTS)
                assert is_word, (path, keys, told)
            elif name in honest[keys].summary.on_signers_word:
                # a lost chunk's build has one value, an ending has a form, listed proofs are checked
                formed = name in ("chunks.build", "ending", "equivocations")
                assert formed, (path, report.findings)


def test_every_member_is_in_one_of_these_sessions() -> None:
    """Breaks: a new member is in no test, so that nobody knows whether it is bound."""
    tried = {named(path) for make in BASES.values() for path in leaves(Case(make()).manifest)}
    assert set(BINDINGS) - tried == set()


def another_request(case: Case, **asked: object) -> Case:
    """Put a request into the history that its host signed, with these members changed."""
    assert case.held.lines is not None
    created = json.loads(case.held.lines[0]) | asked
    settings = SessionSettings.model_validate(created["settings"])
    said = create_request(
        created["session"], created["host"], bytes.fromhex(created["host_key"]), created["counter"],
        bytes.fromhex(created["prev_genesis"]), settings,
    )  # fmt: skip
    created["request"] = HOST.sign(CREATE_PREFIX + said).hex()
    case.held.lines[0] = jcs(created) + b"\n"
    last = case.manifest["lifecycle"]["last"]
    digest = h(b"".join(case.held.lines[:last])).hex()
    return case.resign(lambda manifest: manifest["lifecycle"].update(digest=digest))


def as_another(manifest: dict[str, Any]) -> None:
    manifest["session"] = "s2"
    manifest["host"]["name"] = "host-2"


def test_evidence_of_one_session_cannot_be_sealed_again_as_anothers() -> None:
    """Breaks: a signer hands out one session of one machine as another session of another machine."""
    case = Case(RecordedSession(fragments=6)).resign(as_another)
    assert case.codes(keys=False) == {"history.session"}
    assert case.retell().codes(keys=False) == {"history.request"}


OTHERS: dict[str, dict[str, object]] = {
    "another session": {"session": "s2"},
    "another host name": {"host": "host-2"},
    "another counter": {"counter": 2},
    "another session before": {"prev_genesis": "11" * 32},
    "another uid": {"uid": "11" * 16},
    "other settings": {"settings": SessionSettings(chunk_bytes=1 << 19).model_dump()},
}


@pytest.mark.parametrize("name", OTHERS)
def test_a_true_request_for_something_else_is_found(name: str) -> None:
    """Breaks: any request that a host ever signed vouches for any of its sessions."""
    assert another_request(Case(RecordedSession(fragments=2)), **OTHERS[name]).codes() == {"history.session"}


def test_a_request_that_the_host_did_not_sign_is_found() -> None:
    """Breaks: the signer writes the request himself."""
    case = Case(RecordedSession(fragments=2))
    assert case.held.lines is not None
    good = json.loads(case.held.lines[0])
    stranger = Ed25519PrivateKey.from_private_bytes(b"x" * 32)
    message = CREATE_PREFIX + jcs(
        {name: good[name] for name in ("session", "host", "host_key", "counter", "prev_genesis", "settings")}
    )
    wrong: dict[str, dict[str, object]] = {
        "a stranger's": {"request": stranger.sign(message).hex()},
        "a signer's": {"request": SIGNER.sign(message).hex()},
        "upper case": {"request": good["request"].upper()},
        "no hex": {"request": "x" * 128},
        "a number": {"request": 1},
        "too short": {"request": good["request"][:-2]},
        "over other settings": {"settings": good["settings"] | {"threshold": 5}},
        "without a prefix": {"request": HOST.sign(message[len(CREATE_PREFIX) :]).hex()},
        "no text for a key": {"host_key": 5},
    }
    for name, change in wrong.items():
        other = case.again()
        assert other.held.lines is not None
        other.held.lines[0] = jcs(good | change) + b"\n"
        last = other.manifest["lifecycle"]["last"]
        digest = h(b"".join(other.held.lines[:last])).hex()
        other.resign(lambda manifest, digest=digest: manifest["lifecycle"].update(digest=digest))
        assert "history.request" in other.codes(), name


def test_a_history_that_does_not_begin_with_the_creation_is_found() -> None:
    """Breaks: a history without the host's request passes, and with it any name."""
    for change in (
        lambda lines: lines.pop(0),
        lambda lines: lines.insert(0, jcs({"type": "Transitioned"}) + b"\n"),
        lambda lines: lines.__setitem__(0, jcs({"type": "Created", "session": "demo-01"}) + b"\n"),
    ):
        case = Case(RecordedSession(fragments=2))
        assert case.held.lines is not None
        change(case.held.lines)
        last, digest = len(case.held.lines), h(b"".join(case.held.lines)).hex()
        case.resign(lambda manifest, said=(last, digest): manifest.update(
            lifecycle={"last": said[0], "digest": said[1]}
        ))  # fmt: skip
        assert case.codes() == {"history.created"}


def test_a_seal_that_covers_no_line_is_malformed() -> None:
    """Breaks: one zero in the manifest switches the check of the history off."""
    case = Case(RecordedSession(fragments=2))
    nothing = {"last": 0, "digest": h(b"").hex()}
    assert case.resign(lambda manifest: manifest.update(lifecycle=nothing)).codes() == {"manifest.malformed"}


def test_contents_rest_on_the_signer_until_a_key_is_given() -> None:
    """Breaks: somebody without the key believes that the picture itself was checked."""
    case = Case(RecordedSession(fragments=2))
    without, opened = (case.verify(keys=keys).summary.on_signers_word for keys in (False, True))
    assert without == [*opened, CONTENTS]
    assert opened == [
        "host.attested",
        "signer.name",
        "started_us",
        "sealed_us",
        "chunks.build",
        "equivocations",
    ]


@pytest.mark.parametrize("keys", [True, False])
def test_a_silence_beyond_the_tick_is_a_note(keys: bool) -> None:
    """Breaks: a host that was stopped for a minute looks like one that recorded all the time."""
    silent = Case(RecordedSession(fragments=6, silent_us=85_000_000)).verify(keys=keys)
    assert [note.code for note in silent.notes] == ["host.gap"] * keys + ["host.silent"]
    assert "85.1 s" in silent.notes[-1].message
    assert silent.exit_code == 0
    assert Case(RecordedSession(fragments=6, silent_us=85_000_000)).verify(strict=True).exit_code == 3
    late = Case(RecordedSession(fragments=6, silent_us=19_000_000)).verify(keys=keys)
    assert "host.silent" not in {note.code for note in late.notes}
