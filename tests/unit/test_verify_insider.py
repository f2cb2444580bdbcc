"""Who holds the signer's key can still not lie about what can be recomputed."""

import base64
import random
from collections.abc import Callable
from typing import Any

import pytest

from handlers.format.chunk import ChunkFields, open_chunk, open_plain, read_header, seal_chunk
from handlers.verify.report import FINDINGS
from schemas.format import fragment
from schemas.format.chunk_header import Codec, Suite
from schemas.format.digest import h
from schemas.format.index import Entry, FragmentRow, MetadataRow, pack_row, rows
from schemas.format.jcs import jcs
from tests.support.evidence.evidence_case import Case, Change, entry_of, leaves, put, signed_text
from tests.support.evidence.recorded_session import HOST, KEYS, SIGNER, RecordedSession

RICH = {
    "plain": lambda: RecordedSession(fragments=6),
    "lossy": lambda: RecordedSession(fragments=6, dropped={5}, end=True),
    "lost chunk": lambda: RecordedSession(fragments=6, lost=(1,)),
}

STRANGE: dict[type, list[str]] = {
    int: ["null", "true", "false", "1.0", "1e3", '"1"', "[]", "{}", "9007199254740992", "1" + "0" * 40, "-0"],
    str: ["null", "true", "0", '""', "[]", "{}", '"\\u0000"', '"' + "0" * 65536 + '"'],
    bool: ["null", "0", "1", '"true"', "[]"],
}
"""By kind of member, JSON texts that are none."""


@pytest.mark.parametrize("name", RICH)
def test_no_member_can_be_of_another_kind(name: str) -> None:
    """Breaks: two verifiers read one manifest in two ways, or one of them dies of it."""
    true_case = Case(RICH[name]())
    mark = "the-member-under-test"
    for path in leaves(true_case.manifest):
        case = true_case.again()
        kinds: list[type] = []
        put(case.manifest, path, lambda old, kinds=kinds: kinds.append(type(old)) or mark)
        text = jcs(case.manifest).decode()
        for strange in STRANGE[kinds[0]]:
            case.held.manifests[1] = signed_text(text.replace(f'"{mark}"', strange).encode())
            assert case.verify(keys=False).exit_code == 3, (path, strange)


@pytest.mark.parametrize("name", RICH)
def test_no_member_can_be_missing_or_added(name: str) -> None:
    """Breaks: what an old verifier does not know, or misses, is silently passed over."""
    true_case = Case(RICH[name]())
    objects = {path[:-1] for path in leaves(true_case.manifest) if isinstance(path[-1], str)}
    for path in sorted(objects, key=str):
        more = true_case.again().resign(
            lambda manifest, path=path: at(manifest, path).update(x=1), mended=False
        )
        assert more.codes(keys=False) == {"manifest.malformed"}, path
        for member in list(at(true_case.manifest, path)):
            less = true_case.again()
            less.resign(
                lambda manifest, path=path, member=member: at(manifest, path).pop(member), mended=False
            )
            assert less.verify(keys=False).exit_code == 3, (path, member)


def at(value: Any, path: tuple[Any, ...]) -> Any:
    for step in path:
        value = value[step]
    return value


def drop_member(manifest: dict[str, Any]) -> None:
    del manifest["reason"]


def keep_first(name: str) -> Change:
    def change(manifest: dict[str, Any]) -> None:
        manifest[name] = manifest[name][:-1]

    return change


def cut_tail(manifest: dict[str, Any]) -> None:
    """Leave the last data chunk out, and number the rest anew."""
    del manifest["chunks"][-1]
    for item in manifest["index"]:
        item["index"] -= 1


def forge_gap(manifest: dict[str, Any]) -> None:
    chunk = manifest["chunks"][0]
    manifest["gaps"] = [
        {
            "track": 0, "part": 0, "first_seq": 500, "last_seq": 501, "head_before": chunk["last_head"],
            "prev_head_after": chunk["last_head"], "by": "host", "reason": "none",
        }
    ]  # fmt: skip


def own_ending(manifest: dict[str, Any]) -> None:
    """Put an `end` of the installation in the place of the host's final."""
    uid = bytes.fromhex(manifest["uid"])
    tails: list[fragment.TrackTail] = []
    raw = fragment.EndBody(tracks=tuple(tails), end="aborted", reason="x").build()
    header = fragment.Header(
        fragment.Kind.END, 0, 0, 0, uid, 0, manifest["ended_us"], len(raw), bytes(32)
    ).pack()
    signature = SIGNER.sign(fragment.END_SIGNED + fragment.head(header, h(raw)))
    manifest |= {
        "end": "aborted",
        "reason": "x",
        "ending": base64.b64encode(header + raw + signature).decode(),
    }


def equivocate(manifest: dict[str, Any]) -> None:
    """Accuse the host with one fragment twice."""
    chunk = manifest["chunks"][0]
    raw = bytes.fromhex(chunk["header"] + chunk["body_digest"] + chunk["signature"])
    side = base64.b64encode(raw).decode()
    item = {"track": chunk["track"], "seq": chunk["last_seq"], "a": side, "b": side}
    manifest["equivocations"] = [item]


def swap_tracks(manifest: dict[str, Any]) -> None:
    manifest["tracks"].reverse()


LIES: dict[str, tuple[Change, str]] = {
    "a member left out": (drop_member, "manifest.malformed"),
    "lists not in order": (swap_tracks, "manifest.malformed"),
    "a track left out": (keep_first("tracks"), "track.unlisted"),
    "a part left out": (keep_first("parts"), "part.missing"),
    "the tail cut off": (cut_tail, "ending.place"),
    "the index left out": (keep_first("index"), "chunk.entry"),
    "a gap without a hole": (forge_gap, "gap.unfit"),
    "the ending replaced": (own_ending, "ending.tracks"),
    "the host accused": (equivocate, "equivocation.false"),
    "another number": (lambda manifest: manifest.update(seal_no=2), "manifest.link"),
}


@pytest.mark.parametrize("name", LIES)
def test_a_lie_is_named(name: str) -> None:
    """Breaks: a lie of the signer is found, but as something else, and people look in the wrong place."""
    change, code = LIES[name]
    assert code in Case(RecordedSession(fragments=6)).resign(change).codes(keys=False)


def test_a_hole_that_is_not_declared_is_found() -> None:
    """Breaks: the platform drops fragments in silence."""
    case = Case(RecordedSession(fragments=6, dropped={5}, end=True))
    assert "chain.hole" in case.resign(lambda manifest: manifest.update(gaps=[])).codes(keys=False)


def test_a_lost_chunk_that_is_not_declared_is_found() -> None:
    """Breaks: a chunk can be thrown away after the fact."""
    case = Case(RecordedSession(fragments=6, lost=(1,)))
    assert "chain.hole" in case.resign(lambda manifest: manifest.update(gaps=[])).codes(keys=False)


def test_the_fragment_after_a_gap_is_bound() -> None:
    """Breaks: a gap can be moved, for nothing says what came after it."""
    case = Case(RecordedSession(fragments=6, dropped={5}, end=True))
    first = signed_head(case.manifest["chunks"][0])
    for change in (lambda gap: gap.pop("after"), lambda gap: gap.update(after=first)):
        other = case.again()
        change(other.manifest["gaps"][0])
        assert "gap.after" in other.resign(lambda _: None).codes(keys=False)


def signed_head(chunk: dict[str, Any]) -> dict[str, str]:
    return {name: chunk[name] for name in ("header", "body_digest", "signature")}


def resealed(case: Case, index: int, plain: bytes, *, codec: Codec = Codec.NONE) -> bytes:
    """A chunk with other contents under the session's own key."""
    header = read_header(case.held.chunks[index])
    fields = ChunkFields(header.uid, index, header.track, header.part, header.offset, codec, len(plain))
    return bytes(seal_chunk(Suite.XCHACHA20_POLY1305, KEYS.dek, fields, plain))


def test_other_bytes_under_the_right_key_are_found() -> None:
    """Breaks: whoever has data key and signer can change the picture."""
    case = Case(RecordedSession(fragments=6, codec=0))
    index = max(case.manifest["chunks"], key=lambda chunk: chunk["plain"])["index"]
    plain = bytearray(open_plain(KEYS.dek, case.held.chunks[index]))
    plain[100] ^= 1
    case.put_chunk(index, resealed(case, index, bytes(plain)))
    assert case.codes(keys=False) == set()
    index_chunk = case.manifest["index"][0]["index"]
    told = with_entries(case, open_plain(KEYS.dek, case.held.chunks[index_chunk]))
    case.put_chunk(index_chunk, resealed(case, index_chunk, told))
    assert case.codes() == {"fragment.digest"}


def with_entries(case: Case, plain: bytes) -> bytes:
    """The rows again, with the entries that the manifest has now."""
    listed = {chunk["index"]: entry_of(chunk) for chunk in case.manifest["chunks"]}
    told = (listed[row.index] if isinstance(row, Entry) else row for row in rows(plain))
    return b"".join(pack_row(row) for row in told)


def test_every_row_of_the_index_is_bound() -> None:
    """Breaks: times, signatures or key frames of fragments can be rewritten inside the index."""
    case = Case(RecordedSession(fragments=6, codec=0))
    index = case.manifest["index"][0]["index"]
    good = open_plain(KEYS.dek, case.held.chunks[index])
    at = 0
    for row in rows(good):
        size = len(pack_row(row))
        if not isinstance(row, MetadataRow):
            broken = bytearray(good)
            broken[at + size - 1] ^= 1
            other = case.again().put_chunk(index, resealed(case, index, bytes(broken)))
            assert other.codes(), row
        at += size


def test_no_bytes_of_an_index_chunk_end_in_an_exception() -> None:
    """Breaks: whoever holds the keys can make evidence that no verifier survives."""
    case = Case(RecordedSession(fragments=6, codec=0))
    index = case.manifest["index"][0]["index"]
    good = open_plain(KEYS.dek, case.held.chunks[index])
    metadata = len(pack_row(list(rows(good))[-1]))
    draw = random.Random(5)
    for _ in range(150):
        broken = bytearray(good)
        for _ in range(draw.choice((1, 1, 4, 40))):
            broken[draw.randrange(len(good) - metadata)] = draw.randrange(256)
        found = case.again().put_chunk(index, resealed(case, index, bytes(broken))).codes()
        assert found or broken == good


ROW_LIES: dict[str, tuple[Callable[[list[bytes]], list[bytes]], str]] = {
    "no metadata": (lambda told: told[:-1], "rows.malformed"),
    "metadata twice": (lambda told: [*told, told[-1]], "rows.malformed"),
    "first row gone": (lambda told: told[1:], "rows.malformed"),
    "a fragment gone": (lambda told: [told[0], *told[2:]], "rows.malformed"),
    "a key frame gone": (lambda told: [*told[:-2], told[-1]], "rows.malformed"),
    "key frames exchanged": (lambda told: [*told[:-3], told[-2], told[-3], told[-1]], "rows.key_frames"),
    "fragments exchanged": (lambda told: [told[0], told[2], told[1], *told[3:]], "rows.malformed"),
    "another entry": (lambda told: [told[0][:-1] + b"\x00", *told[1:]], "rows.chunk"),
    "half a row": (lambda told: [*told[:-1], told[-1][:-1]], "rows.malformed"),
}


@pytest.mark.parametrize("name", ROW_LIES)
def test_the_order_of_rows_is_bound(name: str) -> None:
    """Breaks: two readers of one index see two recordings."""
    change, code = ROW_LIES[name]
    case = Case(RecordedSession(fragments=6, codec=0))
    index = case.manifest["index"][0]["index"]
    told = [pack_row(row) for row in rows(open_plain(KEYS.dek, case.held.chunks[index]))]
    plain = b"".join(change(told))

    def length(manifest: dict[str, Any]) -> None:
        manifest["index"][0]["plain"] = len(plain)

    case.resign(length).put_chunk(index, resealed(case, index, plain))
    assert code in case.codes()


def test_a_payload_that_lies_about_its_length_is_found() -> None:
    """Breaks: a decompression bomb, or bytes behind a frame, pass as a recording."""
    case = Case(RecordedSession(fragments=6))
    chunk = max(case.manifest["chunks"], key=lambda chunk: chunk["plain"])
    index, plain = chunk["index"], chunk["plain"]
    payload = open_chunk(KEYS.dek, case.held.chunks[index]).payload
    for bad in (payload + b"x", payload[:-1], b"\x28\xb5\x2f\xfd" + bytes(40), b"x"):
        fields = ChunkFields(
            bytes.fromhex(case.manifest["uid"]), index, chunk["track"], chunk["part"], chunk["offset"],
            Codec.ZSTD, plain,
        )  # fmt: skip
        sealed = bytes(seal_chunk(Suite.XCHACHA20_POLY1305, KEYS.dek, fields, bad))
        assert "open.payload" in case.again().put_chunk(index, sealed).codes()


def test_a_chunk_under_another_key_does_not_open() -> None:
    """Breaks: a chunk that no one can open counts as kept."""
    case = Case(RecordedSession(fragments=6, codec=0))
    sealed = bytearray(case.held.chunks[0])
    sealed[-1] ^= 1
    assert "open.chunk" in case.put_chunk(0, bytes(sealed)).codes()


@pytest.mark.parametrize("first", [0, 1, 2])
def test_chunks_that_were_cut_elsewhere_are_found(first: int) -> None:
    """Breaks: an installation cuts as it likes, and no two of them agree on a root."""
    case = Case(RecordedSession(fragments=30, codec=0))
    settings = case.manifest["settings"]
    for name, value in (("chunk_bytes", 1 << 20), ("chunk_max_seconds", 1)):
        other = case.again()
        other.resign(lambda manifest, name=name, value=value: manifest["settings"].update({name: value}))
        assert other.codes(keys=False) == {"history.session"}, settings
        assert other.codes() == {"cut.false", "history.session"}


def test_fragment_signatures_inside_a_chunk_are_checked() -> None:
    """Breaks: the platform invents fragments between two listed heads."""
    case = Case(RecordedSession(fragments=6, codec=0))
    index = case.manifest["index"][0]["index"]
    told: list[Any] = list(rows(open_plain(KEYS.dek, case.held.chunks[index])))
    at = next(n for n, row in enumerate(told) if isinstance(row, FragmentRow))
    row = told[at]
    forged = HOST.sign(b"something else")
    told[at] = FragmentRow(row.kind, row.flags, row.time_us, row.plain, row.body_digest, forged, row.body)
    plain = b"".join(pack_row(row) for row in told)
    assert case.put_chunk(index, resealed(case, index, plain)).codes() == {"fragment.signature"}


def test_every_code_of_a_finding_is_known() -> None:
    """Breaks: a script meets a code that no document names."""
    seen = {code for _, code in (*LIES.values(), *ROW_LIES.values())}
    assert seen <= FINDINGS.keys()
