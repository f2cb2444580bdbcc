"""An independent writer of small evidence copies, so that readers have something to read.

1. It plays platform and signer (writer_host plays the host) by docs/format.md alone; it shares no
   line with the product.
2. The same plan gives the same bytes, HPKE envelopes excepted (writer_host).
3. It is small, not fast: all chunks stand in memory.

`python tests/independent/writer.py DIR` writes every plan of `PLANS` as DIR/<name>/evidence with a
DIR/<name>/trust.json beside it: something to read for any other reader.

Source: docs/format.md §5 to §11.
"""

from __future__ import annotations

import base64
import gzip
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import brotli
import lz4.frame
import reader_crypto as crypto
import reader_shapes as shapes
import zstandard
from reader_bytes import (
    DATA,
    END,
    ENTRY_FIELDS,
    FINAL,
    INDEX_TRACK,
    MAX_INDEX_PLAIN,
    PART,
    PAUSE,
    ChunkHeader,
    Fragment,
    FragmentRow,
    Header,
    leaf,
    pack_entry,
    pack_key_frame,
    pack_row,
)
from reader_crypto import ZERO32, h
from reader_keyed import OpenChunk, why_closed
from writer_host import START_US, Host, Plan, secret, signing, steps

FAR_US = 4_102_444_800_000_000  # 2100
ZERO_HEX = ZERO32.hex()
COMPRESSORS = {
    0: lambda plain: plain,
    1: lambda plain: zstandard.ZstdCompressor(level=3).compress(plain),
    2: lambda plain: lz4.frame.compress(plain),
    3: lambda plain: brotli.compress(plain, quality=4),
    4: lambda plain: gzip.compress(plain, 6, mtime=0),
}


def cut(fragments: list[Fragment], plan: Plan) -> list[list[Fragment]]:
    """Return the fragments of each chunk, in closing order (docs/format.md §5)."""
    closed: list[list[Fragment]] = []
    filling: dict[int, tuple[OpenChunk, list[Fragment]]] = {}

    def close(track: int) -> None:
        if track in filling:
            closed.append(filling.pop(track)[1])

    for fragment in fragments:
        header, track = fragment.header, fragment.header.track
        if header.kind == FINAL:
            close(1)
        if track in filling and why_closed(
            filling[track][0], header, plan.chunk_bytes, plan.chunk_max_seconds
        ):
            close(track)
        state, members = filling.setdefault(track, (OpenChunk(header.time_us, header.seq, header.part), []))
        state.add(header)
        members.append(fragment)
        if header.kind == PAUSE:
            close(track)
    close(1)
    close(0)
    return closed


def seal_chunk(dek: bytes, plan: Plan, header: ChunkHeader, plain: bytes) -> bytes:
    payload, codec = COMPRESSORS[plan.codec](plain), plan.codec
    if len(payload) > len(plain):
        payload, codec = plain, 0
    header = replace(header, suite=plan.suite, codec=codec, plain=len(plain), payload=len(payload))
    first = header.pack()[:72]
    key, nonce_key, commitment = crypto.chunk_keys(dek, first)
    nonce = crypto.chunk_nonce(nonce_key, first, payload, plan.suite)
    raw = first + nonce + commitment
    return raw + crypto.aead_seal(plan.suite, key, nonce, payload, raw)


@dataclass
class Copy:
    """One evidence copy in memory; `write` puts it on disk."""

    plan: Plan
    dek: bytes
    host: Host
    files: dict[str, bytes]
    manifest: dict[str, Any]
    plain: dict[int, bytes]
    sent: list[Fragment]

    def write(self, folder: Path) -> Path:
        for name, data in self.files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        return folder


class Platform:
    """Cuts, seals and signs what a host sent."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.dek = secret("data key")
        self.host = Host(crypto.IntakeKey(self.dek).public, plan)
        self.signer, self.signer_public = signing(plan.signer)
        self.files: dict[str, bytes] = {}
        self.opened: dict[tuple[int, int], bytes] = {}

    def make(self) -> Copy:
        plan, host = self.plan, self.host
        sent = host.run(plan.steps)
        for step, fragment in zip(plan.steps, sent, strict=False):
            self.opened[(fragment.header.track, fragment.header.seq)] = step[2] if step[1] == DATA else b""
        got = [f for f in sent if (f.header.track, f.header.seq) not in plan.drop]
        groups = cut(got, plan)
        chunks = self._chunks(groups)
        index = self._index(groups, chunks)
        ending = self._ending(sent, chunks)
        history: list[bytes] = [shapes.jcs(host.created())]
        before = ZERO_HEX
        for number in range(1, plan.seals + 1):
            manifest = self._manifest(number, before, groups, chunks, index, ending, history, sent)
            payload = shapes.jcs(manifest)
            kind = shapes.MANIFEST_TYPE
            envelope = shapes.build_envelope(payload, kind, self.signer_public, self.signer.sign)
            self.files[f"manifests/{number}.dsse.json"] = envelope
            before = h(envelope).hex()
        history.append(shapes.jcs({"type": "Sealed", "seal_no": plan.seals}))
        self.files["history.ndjson"] = b"".join(line + b"\n" for line in history)
        keys = {"uid": host.uid.hex(), "dek_id": crypto.dek_id(self.dek).hex(), "dek": self.dek.hex()}
        self.files["keys.json"] = shapes.jcs(keys)
        plain = {t: b"".join(self._plain(g) for g in groups if g[0].header.track == t) for t in (0, 1)}
        return Copy(plan, self.dek, host, self.files, manifest, plain, sent)

    def _plain(self, group: list[Fragment]) -> bytes:
        return b"".join(self.opened.get((f.header.track, f.header.seq), b"") for f in group)

    def _header(self, track: int, part: int, index: int, offset: int) -> ChunkHeader:
        return ChunkHeader(0, 0, track, part, self.host.uid, index, offset, 0, 0, crypto.dek_id(self.dek))

    def _chunks(self, groups: list[list[Fragment]]) -> list[dict[str, Any]]:
        chunks, offsets = [], {0: 0, 1: 0}
        for index, group in enumerate(groups):
            first, last = group[0].header, group[-1].header
            plain, lost = self._plain(group), index in self.plan.lose
            header = self._header(first.track, first.part, index, offsets[first.track])
            sealed = b"" if lost else seal_chunk(self.dek, self.plan, header, plain)
            values = (
                index, first.track, first.part, header.offset, len(plain), len(sealed), first.time_us,
                last.time_us, first.seq, last.seq, first.prev_head.hex(), group[-1].head.hex(),
                ZERO_HEX if lost else h(sealed).hex(),
            )  # fmt: skip
            offsets[first.track] += len(plain)
            more = {"codec": 0 if lost else sealed[6], "build": "lost" if lost else "independent-writer"}
            chunks.append(dict(zip(ENTRY_FIELDS, values, strict=True)) | more | signed(group[-1]))
            if not lost:
                self.files[f"chunks/{index:010}"] = sealed
        return chunks

    def _index(self, groups: list[list[Fragment]], chunks: list[dict[str, Any]]) -> list[dict[str, Any]]:
        rows, frames = [], []
        for group, chunk in zip(groups, chunks, strict=True):
            rows.append(pack_row(1, pack_entry(chunk)))
            offset = chunk["offset"]
            for f in group:
                header, body = f.header, b"" if f.header.kind == DATA else f.body
                fixed = (header.kind, header.flags, header.time_us, header.plain, h(f.body), f.signature)
                rows.append(pack_row(2, FragmentRow(*fixed, body).pack()))
                if header.flags & 1:
                    frame = pack_key_frame(header.track, header.time_us, chunk["index"], offset)
                    frames.append(pack_row(3, frame))
                offset += header.plain
        rows += [*frames, pack_row(4, shapes.jcs({"title": "a test"}))]
        plains = [b""]
        for row in rows:
            if plains[-1] and len(plains[-1]) + len(row) > MAX_INDEX_PLAIN:
                plains.append(b"")
            plains[-1] += row
        return self._index_chunks(plains, len(chunks))

    def _index_chunks(self, plains: list[bytes], start: int) -> list[dict[str, Any]]:
        entries, offset = [], 0
        for number, plain in enumerate(plains, start):
            sealed = seal_chunk(self.dek, self.plan, self._header(INDEX_TRACK, 0, number, offset), plain)
            values = (number, INDEX_TRACK, 0, offset, len(plain), len(sealed), 0, 0, 0, 0)
            heads = (ZERO_HEX, ZERO_HEX, h(sealed).hex())
            entries.append(dict(zip(ENTRY_FIELDS, values + heads, strict=True)))
            self.files[f"chunks/{number:010}"] = sealed
            offset += len(plain)
        return entries

    def _ending(self, sent: list[Fragment], chunks: list[dict[str, Any]]) -> Fragment:
        if self.plan.end == "final":
            return sent[-1]
        tracks = []
        for track in (0, 1):
            own = [c for c in chunks if c["track"] == track]
            if own:
                plain, last = sum(c["plain"] for c in own), own[-1]
                state = {"id": track, "last_seq": last["last_seq"], "head": last["last_head"], "plain": plain}
                tracks.append(state)
        body = shapes.jcs({"end": self.plan.end, "reason": "operator", "tracks": tracks})
        header = Header(END, 0, 0, 0, self.host.uid, 0, self.host.time_us + 5_000_000, len(body), ZERO32)
        head = crypto.fragment_head(header.pack(), h(body))
        return Fragment(header, header.pack(), body, self.signer.sign(crypto.END_PREFIX + head))

    def _gaps(self, groups: list[list[Fragment]], chunks: list[dict[str, Any]]) -> list[dict[str, Any]]:
        gaps = []
        for track in (0, 1):
            own = [(c, g) for c, g in zip(chunks, groups, strict=True) if c["track"] == track]
            at = (0, self.host.genesis(track).hex(), 0)
            for position, (chunk, group) in enumerate(own):
                if chunk["first_seq"] > at[0]:
                    span = (at[0], chunk["first_seq"] - 1, at[1], chunk["prev_head"])
                    gaps.append(gap(track, at[2], *span, "host", group[0]))
                at = (chunk["last_seq"] + 1, chunk["last_head"], chunk["part"])
                if chunk["sealed"] == 0:
                    follower = own[position + 1][1][0] if position + 1 < len(own) else None
                    if follower is not None and follower.header.seq != at[0]:
                        follower = None
                    span = (chunk["first_seq"], chunk["last_seq"], chunk["prev_head"], chunk["last_head"])
                    gaps.append(gap(track, chunk["part"], *span, "installation", follower))
            if self.plan.end == "final" and track in self.host.seqs and at[0] <= self.host.seqs[track]:
                span = (at[0], self.host.seqs[track], at[1], self.host.heads[track].hex())
                gaps.append(gap(track, at[2], *span, "installation", None))
        return gaps

    def _manifest(
        self,
        number: int,
        before: str,
        groups: list[list[Fragment]],
        chunks: list[dict[str, Any]],
        index: list[dict[str, Any]],
        ending: Fragment,
        history: list[bytes],
        sent: list[Fragment],
    ) -> dict[str, Any]:
        plan, host = self.plan, self.host
        sealed_us = host.time_us + 10_000_000 + number
        signer = crypto.fingerprint(self.signer_public)
        started = {"type": "SealStarted", "seal_no": number, "sealed_us": sealed_us, "signer": signer}
        history.append(shapes.jcs(started | {"n": len(chunks)}))
        every = chunks + index
        tracks = sorted(host.seqs if plan.end == "final" else {c["track"] for c in chunks})
        parts = [f for g in groups for f in g if f.header.kind == PART]
        parts.sort(key=lambda f: (f.header.track, f.header.part))
        twins = [(f, host.twin(f)) for f in sent if (f.header.track, f.header.seq) in plan.twice]
        return {
            "type": "lucid.manifest", "version": 1, "seal_no": number, "prev_manifest": before,
            "session": plan.session, "uid": host.uid.hex(), "dek_id": crypto.dek_id(self.dek).hex(),
            "settings": {
                "suite": plan.suite, "codec": plan.codec, "level": 3, "chunk_bytes": plan.chunk_bytes,
                "chunk_max_seconds": plan.chunk_max_seconds,
            },
            "host": {
                "name": plan.host, "key": host.public.hex(), "counter": host.counter,
                "prev_genesis": host.prev_genesis.hex(), "intake": h(host.intake_public).hex(),
                "attested": False,
            },
            "signer": {"key": self.signer_public.hex(), "name": plan.signer},
            "started_us": START_US, "ended_us": ending.header.time_us, "sealed_us": sealed_us,
            "end": plan.end, "reason": "done" if plan.end == "final" else "operator",
            "lifecycle": {"last": len(history), "digest": h(b"".join(x + b"\n" for x in history)).hex()},
            "tracks": [{"id": t, "genesis": host.genesis(t).hex()} for t in tracks],
            "ending": based(ending),
            "parts": [{"track": f.header.track, "part": f.header.part, "fragment": based(f)} for f in parts],
            "chunks": chunks, "gaps": self._gaps(groups, chunks),
            "equivocations": [
                {"track": a.header.track, "seq": a.header.seq, "a": proof(a), "b": proof(b)} for a, b in twins
            ],
            "merkle": {
                "tree_size": len(every), "root": crypto.merkle_root([leaf(e) for e in every]).hex(),
            },
            "totals": {
                "chunks": len(chunks), "index_chunks": len(index), "fragments": sum(map(len, groups)),
                "plain": sum(e["plain"] for e in every), "sealed": sum(e["sealed"] for e in every),
            },
            "index": index,
        }  # fmt: skip


def based(fragment: Fragment) -> str:
    return base64.b64encode(fragment.raw_header + fragment.body + fragment.signature).decode()


def proof(fragment: Fragment) -> str:
    return base64.b64encode(fragment.raw_header + h(fragment.body) + fragment.signature).decode()


def signed(fragment: Fragment) -> dict[str, str]:
    digest, signature = h(fragment.body).hex(), fragment.signature.hex()
    return {"header": fragment.raw_header.hex(), "body_digest": digest, "signature": signature}


def gap(
    track: int, part: int, first: int, last: int, before: str, after: str, by: str, follower: Fragment | None
) -> dict[str, Any]:
    value: dict[str, Any] = {
        "track": track, "part": part, "first_seq": first, "last_seq": last, "head_before": before,
        "prev_head_after": after, "by": by, "reason": "lost",
    }  # fmt: skip
    return value | ({} if follower is None else {"after": signed(follower)})


def trust_file(
    signers: tuple[str, ...] = ("signer",),
    hosts: tuple[str, ...] = ("host",),
    expires_us: int = FAR_US,
    revoked: frozenset[str] = frozenset(),
    until_us: int = FAR_US,
    host_name: str = "demo-host",
) -> bytes:
    root, public = signing("root")
    keys = [
        {
            "key": signing(name)[1].hex(), "role": role, "name": host_name if role == "host" else name,
            "from_us": 0, "until_us": until_us,
            "revoked_us": START_US if name in revoked else 0,
        }
        for role, names in (("signer", signers), ("host", hosts))
        for name in names
    ]  # fmt: skip
    payload = {
        "type": "lucid.trust", "version": 1, "serial": 1, "root": public.hex(), "issued_us": START_US,
        "expires_us": expires_us, "keys": keys,
    }  # fmt: skip
    return shapes.build_envelope(shapes.jcs(payload), shapes.TRUST_TYPE, public, root.sign)


def make(plan: Plan) -> Copy:
    return Platform(plan).make()


LOSSES = {
    "gap": Plan(steps(), drop=frozenset({(0, 4), (0, 5)})),
    "gap-at-end": Plan(steps(), drop=frozenset({(1, 4)})),
    "track-missing": Plan(steps(), drop=frozenset((1, seq) for seq in range(9))),
    "aborted": Plan(steps(), end="aborted"),
    "host-lost-with-gaps": Plan(steps(), end="host_lost", drop=frozenset({(0, 3), (1, 2)})),
    "lost-chunk": Plan(steps(), lose=frozenset({1})),
    "lost-chunks-in-a-row": Plan(steps(), lose=frozenset({0, 1})),
    "lost-chunk-beside-hole": Plan(steps(), lose=frozenset({0}), drop=frozenset({(0, 6), (0, 7), (0, 8)})),
    "lost-last-chunk": Plan(steps(), lose=frozenset({3})),
    "equivocation": Plan(steps(), twice=frozenset({(0, 3)})),
    "nothing-at-all": Plan((), end="host_lost"),
}
PLANS = LOSSES | {
    f"suite-{suite}-codec-{codec}": Plan(steps(), suite=suite, codec=codec)
    for suite in (1, 2)
    for codec in COMPRESSORS
}
PLANS |= {"three-seals": Plan(steps(1), seals=3), "long": Plan(steps(40))}


if __name__ == "__main__":
    for name, plan in PLANS.items():
        make(plan).write(Path(sys.argv[1]) / name / "evidence")
        (Path(sys.argv[1]) / name / "trust.json").write_bytes(trust_file())
