"""One evidence copy on disk, with its trust file beside it, that a test may damage and read.

`resign` plays the insider: it changes the last manifest and signs it again with the listed key, so
that only what is recomputed can still tell the truth.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import reader
import reader_shapes as shapes
import writer
from reader_bytes import read_chunk_header
from reader_crypto import h, merkle_root
from reader_keyed import open_chunk
from writer_host import Plan, signing


class Evidence:
    def __init__(self, plan: Plan, folder: Path) -> None:
        self.copy = writer.make(plan)
        self.folder = self.copy.write(folder / "evidence")
        self.trust = folder / "trust.json"
        self.trust.write_bytes(writer.trust_file())
        self.out = folder / "out.bin"
        self.said = ""

    def read(self, *options: str, trust: bytes | None = None, keys: bool = True, now_us: int = 1) -> int:
        """Return the exit code; what was printed is in `said`."""
        if trust is not None:
            self.trust.write_bytes(trust)
        inside = self.folder / "keys.json"
        if not keys and inside.exists():
            inside.rename(self.folder.parent / "keys.json")
        said = io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            code = reader.main([str(self.folder), "--trust", str(self.trust), *options], now_us=now_us)
        self.said = said.getvalue()
        return code

    @property
    def codes(self) -> set[str]:
        """The codes of all findings of the last read."""
        lines = [line for line in self.said.splitlines() if line.startswith("FALSE ")]
        return {line.rsplit("[", 1)[1].rstrip("]") for line in lines}

    def file(self, name: str) -> Path:
        return self.folder / name

    def flip(self, name: str, place: int, bit: int = 0) -> None:
        path = self.file(name)
        data = bytearray(path.read_bytes())
        data[place] ^= 1 << bit
        path.write_bytes(data)

    def resign(self, change: Callable[[dict[str, Any]], None], signer: str = "signer") -> None:
        change(self.copy.manifest)
        self.put_manifest(self.copy.manifest, signer)

    def put_manifest(self, manifest: dict[str, Any], signer: str = "signer") -> None:
        key, public = signing(signer)
        envelope = shapes.build_envelope(shapes.jcs(manifest), shapes.MANIFEST_TYPE, public, key.sign)
        self.file(f"manifests/{self.copy.plan.seals}.dsse.json").write_bytes(envelope)

    def put_chunk(self, index: int, plain: bytes) -> None:
        """Seal other plain bytes into a chunk, and let manifest and index chunk agree with it."""
        plan, dek, chunks = self.copy.plan, self.copy.dek, self.copy.manifest["chunks"]
        every = chunks + self.copy.manifest["index"]
        path = self.file(f"chunks/{index:010}")
        before = writer.pack_entry(every[index])
        sealed = writer.seal_chunk(dek, plan, read_chunk_header(path.read_bytes()), plain)
        path.write_bytes(sealed)
        every[index] |= {"digest": h(sealed).hex(), "sealed": len(sealed), "plain": len(plain)}
        if index < len(chunks):
            table = open_chunk(dek, self.file(f"chunks/{len(chunks):010}").read_bytes())
            self.put_chunk(len(chunks), table.replace(before, writer.pack_entry(every[index])))
        else:
            self.resign(mend)


def mend(manifest: dict[str, Any]) -> None:
    """Make tree and totals fit the entries, as a careful liar would."""
    chunks, every = manifest["chunks"], manifest["chunks"] + manifest["index"]
    manifest["merkle"] = {
        "tree_size": len(every),
        "root": merkle_root([writer.leaf(entry) for entry in every]).hex(),
    }
    manifest["totals"] |= {
        "fragments": sum(c["last_seq"] - c["first_seq"] + 1 for c in chunks),
        "plain": sum(entry["plain"] for entry in every),
        "sealed": sum(entry["sealed"] for entry in every),
    }
