import json
from dataclasses import asdict, replace
from typing import Any

import pytest

from schemas.errors import EvidenceFalse
from schemas.format import dsse
from schemas.format import manifest as m
from schemas.format import trust as t
from schemas.format.digest import ZERO, h
from schemas.format.index import Entry
from schemas.format.jcs import jcs
from tests.support.evidence.format_samples import GENESIS, HOST_PUBLIC, SIGNER, SIGNER_PUBLIC, START_US, UID

ENTRY = Entry(0, 0, 0, 0, 100, 244, START_US, START_US, 0, 2, GENESIS, h(b"last"), h(b"file"))
INDEX = Entry(1, 0xFFFF, 0, 0, 100, 244, 0, 0, 0, 0, ZERO, ZERO, h(b"index"))
HEAD = m.SignedHead(header=bytes(96), body_digest=h(b""), signature=bytes(64))
GAP = m.Gap(
    track=0,
    part=0,
    first_seq=3,
    last_seq=4,
    head_before=GENESIS,
    prev_head_after=ZERO,
    by="host",
    reason="lost",
)
MANIFEST = m.Manifest(
    seal_no=1,
    prev_manifest=ZERO,
    session="demo-01",
    uid=UID,
    dek_id=bytes(16),
    settings=m.SealedSettings(suite=1, codec=1, level=3, chunk_bytes=10 << 20, chunk_max_seconds=60),
    host=m.Host(name="h", key=HOST_PUBLIC, counter=7, prev_genesis=ZERO, intake=h(b""), attested=False),
    signer=m.SealSigner(key=SIGNER_PUBLIC, name="local"),
    started_us=START_US,
    ended_us=START_US,
    sealed_us=START_US,
    end="final",
    reason=m.FINAL_REASON,
    lifecycle=m.Lifecycle(last=6, digest=h(b"")),
    tracks=(m.TrackGenesis(id=0, genesis=GENESIS),),
    ending=bytes(160),
    parts=(m.Part(track=0, part=0, fragment=bytes(160)),),
    chunks=(m.Chunk(**m.EntryFields.members(ENTRY), **asdict(HEAD), codec=1, build="zstd-1.5.7"),),
    gaps=(GAP, replace(GAP, first_seq=7, last_seq=7, after=HEAD)),
    equivocations=(m.EquivocationItem(track=0, seq=1, a=bytes(192), b=bytes(192)),),
    merkle=m.Merkle(tree_size=2, root=h(b"")),
    totals=m.Totals(chunks=1, index_chunks=1, fragments=3, plain=200, sealed=488),
    index=(m.IndexChunk(**m.EntryFields.members(INDEX)),),
)
RAW = MANIFEST.build()


def test_a_manifest_reads_back_from_its_envelope() -> None:
    """Breaks: no session could be verified."""
    envelope = dsse.parse(dsse.build(RAW, dsse.MANIFEST, SIGNER.sign, SIGNER_PUBLIC), dsse.MANIFEST)
    assert m.Manifest.within(envelope) == m.Manifest.parse(RAW) == MANIFEST
    assert MANIFEST.chunks[0].entry == ENTRY
    assert MANIFEST.index[0].entry == INDEX


def test_an_absent_member_is_absent_and_never_null() -> None:
    """Breaks: other readers of the manifest."""
    gaps = json.loads(RAW)["gaps"]
    assert "after" not in gaps[0]
    assert "after" in gaps[1]
    assert b"null" not in RAW


def _paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path] if path else []
    match value:
        case dict():
            for name, member in value.items():
                found += _paths(member, (*path, name))
        case list():
            for at, item in enumerate(value):
                found += _paths(item, (*path, at))
    return found


def _changed(path: tuple[Any, ...], change: Any) -> bytes:
    value = json.loads(RAW)
    inner = value
    for step in path[:-1]:
        inner = inner[step]
    if change is None:
        del inner[path[-1]]
    else:
        inner[path[-1]] = change(inner[path[-1]])
    return jcs(value)


def _refused(raw: bytes) -> str:
    with pytest.raises(EvidenceFalse) as caught:
        m.Manifest.parse(raw)
    assert caught.value.code == "manifest.form"
    return caught.value.message


MEMBERS = [path for path in _paths(json.loads(RAW)) if isinstance(path[-1], str) and path[-1] != "after"]


@pytest.mark.parametrize("path", MEMBERS, ids=lambda path: ".".join(map(str, path)))
def test_no_member_can_be_left_out_or_be_of_another_type(path: tuple[Any, ...]) -> None:
    """Breaks: a verifier would take a missing promise for a kept one."""
    _refused(_changed(path, None))
    _refused(_changed(path, lambda _: [[[]]]))
    _refused(_changed(path, _near))


def _near(value: Any) -> Any:
    """Another value that a careless reader takes for the same."""
    match value:
        case str():
            return value + "\n"
        case bool():
            return int(value)
        case int():
            return bool(value)
    return str(value)


def _objects() -> list[tuple[Any, ...]]:
    found = []
    for path in _paths(json.loads(RAW)):
        value = json.loads(RAW)
        for step in path:
            value = value[step]
        if isinstance(value, dict):
            found.append(path)
    return found


@pytest.mark.parametrize("path", _objects(), ids=lambda path: ".".join(map(str, path)))
def test_no_member_can_be_added(path: tuple[Any, ...]) -> None:
    """Breaks: a promise that nobody checks would be signed."""
    _refused(_changed(path, lambda value: value | {"x": 1}))


@pytest.mark.parametrize(
    ("path", "change"),
    [
        (("tracks",), lambda v: v * 2),
        (("parts",), lambda v: v * 2),
        (("gaps",), lambda v: v[::-1]),
        (("gaps",), lambda v: v[:1] * 2),
        (("chunks",), lambda v: v * 2),
        (("chunks",), lambda _: []),
        (("index", 0, "index"), lambda _: 2),
        (("chunks", 0, "track"), lambda _: 0xFFFF),
        (("index", 0, "track"), lambda _: 0),
        (("chunks", 0, "sealed"), lambda _: 0),
        (("chunks", 0, "plain"), lambda _: 2**32),
        (("chunks", 0, "first_seq"), lambda _: 3),
        (("equivocations",), lambda v: v * 17),
        (("equivocations", 0, "a"), lambda _: "AAAA"),
        (("ending",), lambda _: "d2hvbGV="),
        (("uid",), lambda v: v.upper()),
        (("uid",), lambda v: v + " "),
        (("seal_no",), lambda _: 0),
        (("session",), lambda _: "a b"),
        (("settings", "chunk_bytes"), lambda _: (1 << 18) - 1),
        (("settings", "chunk_bytes"), lambda _: (16 << 20) + 1),
        (("type",), lambda _: "lucid.trust"),
        (("version",), lambda _: 2),
        (("end",), lambda _: "done"),
    ],
)
def test_a_list_out_of_order_or_a_value_out_of_bounds_is_refused(path: tuple[Any, ...], change: Any) -> None:
    """Breaks: two texts of one manifest, or memory of the verifier."""
    assert _changed(path, change) != RAW
    _refused(_changed(path, change))


def test_a_lost_chunk_says_so_in_every_field() -> None:
    """Breaks: a lost chunk would count as a stored one."""
    value = json.loads(RAW)
    value["chunks"][0] |= {"sealed": 0, "digest": "00" * 32}
    _refused(jcs(value))
    value["chunks"][0] |= {"codec": 0, "build": "lost"}
    assert m.Manifest.parse(jcs(value)).chunks[0].entry.lost


def test_keys_of_more_than_4_kib_are_not_read() -> None:
    """Breaks: memory, for a file of three short fields."""
    keys = t.Keys(uid=UID, dek_id=bytes(16), dek=bytes(32))
    assert t.Keys.parse(keys.build()) == keys
    assert bytes(32).hex() not in repr(keys)
    with pytest.raises(EvidenceFalse) as caught:
        t.Keys.parse(keys.build() + b" " * 4096)
    assert caught.value.code == "keys.form"


def test_trust_file_and_tombstone_read_back() -> None:
    """Breaks: nobody could tell whose signature it is, or that a session was destroyed."""
    key = t.TrustKey(
        key=SIGNER_PUBLIC, role="signer", name="local", from_us=0, until_us=START_US, revoked_us=0
    )
    trust = t.TrustFile(serial=1, root=HOST_PUBLIC, issued_us=0, expires_us=START_US, keys=(key,))
    assert t.TrustFile.parse(trust.build()) == trust
    stone = t.Tombstone(
        uid=UID,
        dek_id=bytes(16),
        manifest=ZERO,
        who="admin",
        approver="second",
        reason="asked",
        at_us=START_US,
        places=(t.Place(place="chunks", outcome="erased"),),
        backups_until_us=START_US,
    )
    assert t.Tombstone.parse(stone.build()) == stone
    with pytest.raises(EvidenceFalse) as caught:
        t.TrustFile.parse(stone.build())
    assert caught.value.code == "trust.form"
