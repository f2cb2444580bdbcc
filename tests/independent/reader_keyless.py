"""What one manifest proves by itself: no files, no secret keys.

1. Everything that can be recomputed is recomputed; nothing a signer says about it is believed.
2. Each disagreement is one finding with code and place; the walk goes on where that is safe.
3. The manifest has its exact shape already (reader_shapes.MANIFEST).

Source: docs/format.md §7, §9 and §13.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from reader_bytes import (
    END,
    ENTRY_FIELDS,
    FINAL,
    PART,
    SEALED_EXTRA,
    Fragment,
    Header,
    leaf,
    read_fragment,
    read_header,
    split_part_body,
)
from reader_crypto import (
    END_PREFIX,
    FRAGMENT_PREFIX,
    ZERO32,
    Bad,
    fragment_head,
    genesis,
    merkle_root,
    session_uid,
    signature_is_good,
)
from reader_shapes import PART_SETTINGS, parse_canonical, read_body

ZERO_HEX = ZERO32.hex()


@dataclass
class Report:
    """What was found: findings make the evidence false, notes do not."""

    findings: list[tuple[str, str, str]] = field(default_factory=list)
    notes: list[tuple[str, str]] = field(default_factory=list)

    def find(self, code: str, place: str, text: str) -> None:
        self.findings.append((code, place, text))

    def note(self, code: str, text: str) -> None:
        self.notes.append((code, text))

    def need(self, holds: bool, code: str, place: str, text: str) -> bool:
        if not holds:
            self.find(code, place, text)
        return holds


def is_lost(chunk: dict[str, Any]) -> bool:
    return chunk["sealed"] == 0


class Keyless:
    """One walk over one manifest; `report` receives what does not hold."""

    def __init__(self, manifest: dict[str, Any], report: Report) -> None:
        self.m = manifest
        self.report = report
        self.uid = bytes.fromhex(manifest["uid"])
        self.host_key = bytes.fromhex(manifest["host"]["key"])
        self.geneses = {track["id"]: track["genesis"] for track in manifest["tracks"]}
        self.parts: dict[tuple[int, int], Fragment] = {}
        self.ending: Fragment | None = None
        self.ending_tracks: list[dict[str, Any]] = []

    def check(self) -> None:
        self._identity()
        self._order()
        self._parts()
        self._ending()
        for chunk in self.m["chunks"]:
            self._chunk(chunk)
        self._index_entries()
        self._chain()
        self._equivocations()
        self._sums()

    def _need(self, holds: bool, code: str, place: str, text: str) -> bool:
        return self.report.need(holds, code, place, text)

    def _identity(self) -> None:
        m, host = self.m, self.m["host"]
        uid = session_uid(self.host_key, host["counter"])
        self._need(uid == self.uid, "manifest.uid", "uid", "uid does not come from host key and counter")
        previous, intake = bytes.fromhex(host["prev_genesis"]), bytes.fromhex(host["intake"])
        for track, said in self.geneses.items():
            first = genesis(uid, track, self.host_key, host["counter"], previous, intake)
            self._need(first.hex() == said, "manifest.genesis", f"tracks {track}", "the genesis is another")
        no_first = (m["seal_no"] == 1) == (m["prev_manifest"] == ZERO_HEX)
        self._need(no_first, "manifest.link", "prev_manifest", "zero is for seal 1, and for seal 1 only")

    def _order(self) -> None:
        m = self.m
        keys = {
            "tracks": [t["id"] for t in m["tracks"]],
            "parts": [(p["track"], p["part"]) for p in m["parts"]],
            "gaps": [(g["track"], g["first_seq"]) for g in m["gaps"]],
        }
        for name, order in keys.items():
            self._need(order == sorted(set(order)), "manifest.order", name, "not sorted, or one twice")
        numbers = [c["index"] for c in m["chunks"] + m["index"]]
        self._need(
            numbers == list(range(len(numbers))), "manifest.order", "chunks", "indices are not 0, 1, 2 …"
        )
        self._need(len(m["index"]) > 0, "manifest.index", "index", "there is no index chunk")

    def _host_signed(self, head: bytes, signature: bytes) -> bool:
        return signature_is_good(self.host_key, FRAGMENT_PREFIX + head, signature)

    def _signed_header(self, item: dict[str, Any], place: str) -> tuple[Header, bytes] | None:
        """Return header and head of {header, body_digest, signature}, or None after a finding."""
        raw, signature = bytes.fromhex(item["header"]), bytes.fromhex(item["signature"])
        try:
            header = read_header(raw)
        except Bad as bad:
            self.report.find(bad.code, place, bad.text)
            return None
        head = fragment_head(raw, bytes.fromhex(item["body_digest"]))
        self._need(header.uid == self.uid, "fragment.uid", place, "the header is of another session")
        self._need(header.kind != END, "fragment.kind", place, "an end is in no chunk")
        self._need(self._host_signed(head, signature), "fragment.signature", place, "not signed by the host")
        return header, head

    def _parts(self) -> None:
        for item in self.m["parts"]:
            place = f"part {item['track']}/{item['part']}"
            try:
                fragment = read_fragment(base64.b64decode(item["fragment"]))
                header = fragment.header
                if header.kind != PART or (header.track, header.part) != (item["track"], item["part"]):
                    raise Bad("part.header", "the fragment is not the start of this part")
                PART_SETTINGS(parse_canonical(split_part_body(fragment.body)[0], "part.settings"), "part")
            except Bad as bad:
                self.report.find(bad.code, place, bad.text)
                continue
            self.parts[(header.track, header.part)] = fragment
            self._need(header.uid == self.uid, "fragment.uid", place, "the header is of another session")
            good = self._host_signed(fragment.head, fragment.signature)
            self._need(good, "fragment.signature", place, "not signed by the host")
        used = {(c["track"], c["part"]) for c in self.m["chunks"]}
        listed = {(p["track"], p["part"]) for p in self.m["parts"]}
        self._need(used == listed, "part.listed", "parts", "parts are not those of the chunks")

    def _ending(self) -> None:
        m = self.m
        try:
            fragment = read_fragment(base64.b64decode(m["ending"]))
            header = fragment.header
            if header.kind not in (FINAL, END):
                raise Bad("ending.kind", "neither a final nor an end")
            body = read_body(header.kind, fragment.body)
        except Bad as bad:
            self.report.find(bad.code, "ending", bad.text)
            return
        self.ending, self.ending_tracks = fragment, body["tracks"]
        if header.kind == FINAL:
            good, said = self._host_signed(fragment.head, fragment.signature), ("final", "done")
        else:
            signer = bytes.fromhex(m["signer"]["key"])
            good = signature_is_good(signer, END_PREFIX + fragment.head, fragment.signature)
            said = (body["end"], body["reason"])
        self._need(good, "ending.signature", "ending", "not signed by whom it must be")
        self._need(header.uid == self.uid, "fragment.uid", "ending", "the header is of another session")
        self._need(
            (m["end"], m["reason"]) == said, "ending.said", "end", "end or reason is not the fragment's"
        )
        self._need(m["ended_us"] == header.time_us, "ending.time", "ended_us", "not the time of the ending")
        with_chunks = {c["track"] for c in m["chunks"]}
        named = {t["id"] for t in self.ending_tracks}
        same = with_chunks <= named if header.kind == FINAL else with_chunks == named
        self._need(
            same and set(self.geneses) == named, "ending.tracks", "tracks", "not the tracks of the ending"
        )
        if header.kind == FINAL:
            own = self.ending_tracks[0] if self.ending_tracks else {"id": None}
            fits = (
                own["id"] == 0 and own["last_seq"] == header.seq - 1 and own["head"] == header.prev_head.hex()
            )
            self._need(
                fits, "ending.tracks", "ending", "track 0 is not as far as the fragment before the final"
            )

    def _chunk(self, chunk: dict[str, Any]) -> None:
        place, settings = f"chunk {chunk['index']:010}", self.m["settings"]
        lost = (chunk["sealed"] == 0, chunk["digest"] == ZERO_HEX, chunk["build"] == "lost")
        if (
            self._need(len(set(lost)) == 1, "chunk.lost", place, "neither wholly lost nor wholly there")
            and lost[0]
        ):
            self._need(chunk["codec"] == 0, "chunk.lost", place, "a lost chunk has codec 0")
        if not is_lost(chunk):
            high = SEALED_EXTRA + chunk["plain"]
            low = high if chunk["codec"] == 0 else SEALED_EXTRA
            self._need(low <= chunk["sealed"] <= high, "chunk.length", place, "the sealed length cannot be")
        self._need(chunk["codec"] in (0, settings["codec"]), "chunk.codec", place, "not the session's codec")
        seen = self._signed_header(chunk, place)
        if seen is None:
            return
        header, head = seen
        same = (header.track, header.part, header.seq, header.time_us) == (
            chunk["track"], chunk["part"], chunk["last_seq"], chunk["last_us"],
        )  # fmt: skip
        self._need(same, "chunk.last", place, "its last header is of another track, part, seq or time")
        self._need(
            head.hex() == chunk["last_head"], "chunk.head", place, "the head of its last header is another"
        )
        if chunk["first_seq"] == chunk["last_seq"]:
            alone = chunk["first_us"] == chunk["last_us"] and header.prev_head.hex() == chunk["prev_head"]
            self._need(alone, "chunk.first", place, "its one fragment has two beginnings")
            self._need(
                header.plain == chunk["plain"], "chunk.first", place, "its one fragment has two lengths"
            )
        self._need(chunk["first_seq"] <= chunk["last_seq"], "chunk.first", place, "it ends before it begins")

    def _index_entries(self) -> None:
        offset = 0
        for entry in self.m["index"]:
            place = f"chunk {entry['index']:010}"
            unused = [entry[name] for name in ENTRY_FIELDS[6:10]] + [entry["part"]]
            zero = not any(unused) and entry["prev_head"] == entry["last_head"] == ZERO_HEX
            self._need(zero, "index.entry", place, "part, times, seqs and heads of an index chunk are zero")
            self._need(entry["offset"] == offset, "chunk.offset", place, "the offset is not running")
            fits = SEALED_EXTRA < entry["sealed"] <= SEALED_EXTRA + entry["plain"]
            self._need(fits, "chunk.length", place, "the sealed length cannot be")
            offset += entry["plain"]

    def _chain(self) -> None:
        """Continuity, offsets, plain totals and gaps, track by track."""
        wanted: list[tuple[dict[str, Any], dict[str, Any] | None]] = []
        named = {t["id"]: t for t in self.ending_tracks}
        for track in sorted(set(self.geneses) | {c["track"] for c in self.m["chunks"]}):
            wanted += self._walk(track, named.get(track))
        self._gaps(wanted)

    def _walk(
        self, track: int, end: dict[str, Any] | None
    ) -> Iterator[tuple[dict[str, Any], dict[str, Any] | None]]:
        """Yield each gap that must be listed on this track, with the chunk that follows it (or None)."""
        chunks = [c for c in self.m["chunks"] if c["track"] == track]
        head, seq, part, offset, holes = self.geneses.get(track, ZERO_HEX), 0, None, 0, False
        for position, chunk in enumerate(chunks):
            place = f"chunk {chunk['index']:010}"
            if chunk["first_seq"] > seq:
                holes = True
                yield _gap(track, part or 0, seq, chunk["first_seq"] - 1, head, chunk["prev_head"]), chunk
            else:
                continued = chunk["first_seq"] == seq and chunk["prev_head"] == head
                self._need(continued, "chain.broken", place, "it does not continue what is before it")
            if part != chunk["part"]:
                next_part = 0 if part is None else part + 1
                missing = chunk["first_seq"] > seq
                fits = chunk["part"] == next_part or (missing and chunk["part"] > next_part)
                self._need(fits, "chain.part", place, "an earlier part again, or one was skipped")
                self._part_start(chunk, place)
            if is_lost(chunk):
                after = chunks[position + 1] if position + 1 < len(chunks) else None
                if after is not None and after["first_seq"] != chunk["last_seq"] + 1:
                    after = None
                gap = (chunk["first_seq"], chunk["last_seq"], chunk["prev_head"], chunk["last_head"])
                yield _gap(track, chunk["part"], *gap), after
            self._need(chunk["offset"] == offset, "chunk.offset", place, "the offset is not running")
            head, seq, part = chunk["last_head"], chunk["last_seq"] + 1, chunk["part"]
            offset += chunk["plain"]
            last_kind = int(chunk["header"][10:12], 16)
            if last_kind == FINAL:
                is_ending = self.ending is not None and chunk["header"] == self.ending.raw_header.hex()
                fits = is_ending and position + 1 == len(chunks)
                self._need(fits, "chain.final", place, "a final is not the ending, or something follows it")
        if end is not None:
            yield from self._track_end(track, end, (head, seq, part, offset, holes))

    def _track_end(
        self, track: int, end: dict[str, Any], at: tuple[str, int, int | None, int, bool]
    ) -> Iterator[tuple[dict[str, Any], dict[str, Any] | None]]:
        head, seq, part, plain, holes = at
        place = f"ending {track}"
        assert self.ending is not None
        kind = self.ending.header.kind
        if kind == FINAL and track == 0:
            fits = seq == self.ending.header.seq + 1 and head == self.ending.head.hex()
            self._need(fits, "ending.last", place, "the final is not the last fragment of track 0")
        elif kind == FINAL and end["last_seq"] >= seq:
            holes = True
            yield _gap(track, part or 0, seq, end["last_seq"], head, end["head"]), None
        else:
            fits = end["last_seq"] == seq - 1 and end["head"] == head
            self._need(fits, "ending.last", place, "last seq or head is not that of the last chunk")
        fits = end["plain"] == plain or (holes and kind == FINAL and end["plain"] > plain)
        self._need(fits, "ending.plain", place, "the plain total is not that of the chunks")

    def _part_start(self, chunk: dict[str, Any], place: str) -> None:
        fragment = self.parts.get((chunk["track"], chunk["part"]))
        if fragment is None:
            return  # found already: part.listed, or the fragment itself
        header = fragment.header
        starts = (header.seq, header.time_us, header.prev_head.hex())
        same = starts == (chunk["first_seq"], chunk["first_us"], chunk["prev_head"])
        self._need(same, "part.first", place, "its first fragment is not the start of the part")
        if chunk["first_seq"] == chunk["last_seq"]:
            one = fragment.head.hex() == chunk["last_head"]
            self._need(one, "part.first", place, "its one fragment is not the start of the part")

    def _gaps(self, wanted: list[tuple[dict[str, Any], dict[str, Any] | None]]) -> None:
        listed = {(g["track"], g["first_seq"]): g for g in self.m["gaps"]}
        for gap, follower in wanted:
            place = f"gap {gap['track']}/{gap['first_seq']}"
            said = listed.pop((gap["track"], gap["first_seq"]), None)
            if said is None:
                self.report.find("gap.missing", place, "fragments are missing and no gap says so")
                continue
            same = all(said[name] == value for name, value in gap.items())
            self._need(same, "gap.fields", place, "it does not fit the chunks around it")
            if not self._need(
                (follower is None) != ("after" in said), "gap.after", place, "`after` must fit"
            ):
                continue
            if follower is not None:
                self._after(said, follower, place)
        for track, first in listed:
            self.report.find("gap.unfounded", f"gap {track}/{first}", "nothing is missing there")

    def _after(self, gap: dict[str, Any], follower: dict[str, Any], place: str) -> None:
        seen = self._signed_header(gap["after"], place)
        if seen is None:
            return
        header, head = seen
        same = (header.track, header.seq, header.part, header.time_us, header.prev_head.hex()) == (
            follower["track"], follower["first_seq"], follower["part"], follower["first_us"],
            gap["prev_head_after"],
        )  # fmt: skip
        self._need(same, "gap.after", place, "the header after it is not the next chunk's first")
        if follower["first_seq"] == follower["last_seq"]:
            self._need(
                head.hex() == follower["last_head"], "gap.after", place, "the next fragment is another"
            )

    def _equivocations(self) -> None:
        for position, item in enumerate(self.m["equivocations"]):
            place, heads = f"equivocation {position}", []
            for side in ("a", "b"):
                raw = base64.b64decode(item[side])
                parts = {
                    "header": raw[:96].hex(),
                    "body_digest": raw[96:128].hex(),
                    "signature": raw[128:].hex(),
                }
                seen = self._signed_header(parts, place)
                if seen is not None:
                    heads.append(seen[1])
                    same = (seen[0].track, seen[0].seq) == (item["track"], item["seq"])
                    self._need(same, "equivocation.header", place, "of another track or seq")
            self._need(len(set(heads)) == 2, "equivocation.same", place, "these are not two fragments")

    def _sums(self) -> None:
        m = self.m
        every = m["chunks"] + m["index"]
        totals = {
            "chunks": len(m["chunks"]),
            "index_chunks": len(m["index"]),
            "fragments": sum(c["last_seq"] - c["first_seq"] + 1 for c in m["chunks"]),
            "plain": sum(c["plain"] for c in every),
            "sealed": sum(c["sealed"] for c in every),
        }
        self._need(m["totals"] == totals, "manifest.totals", "totals", "the sums are others")
        tree = {"tree_size": len(every), "root": merkle_root([leaf(entry) for entry in every]).hex()}
        self._need(m["merkle"] == tree, "manifest.merkle", "merkle", "tree size or root is another")


def _gap(track: int, part: int, first: int, last: int, before: str, after: str) -> dict[str, Any]:
    return {
        "track": track, "part": part, "first_seq": first, "last_seq": last, "head_before": before,
        "prev_head_after": after,
    }  # fmt: skip
