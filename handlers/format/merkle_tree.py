"""The Merkle tree of a session: BLAKE3 in the shape of RFC 9162 (format.md §7).

    leaf = H(0x00 ‖ entry)    node = H(0x01 ‖ left ‖ right)    empty tree = H("")

1. `Tree` keeps only the roots of its full subtrees: an append costs one digest on average.
2. Proofs are made from the leaves, and verified with root and size alone.

Source: RFC 9162 §2.1.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NoReturn, Self

from schemas.errors import Rejected
from schemas.format.digest import DIGEST_BYTES, h

MAX_LEAVES = 2**53
_SIZE_BYTES = 8


def leaf(entry: bytes) -> bytes:
    """Return the leaf of a packed entry, 32 bytes."""
    return h(b"\x00" + entry)


def node(left: bytes, right: bytes) -> bytes:
    return h(b"\x01" + left + right)


class Tree:
    """A Merkle tree that grows at its right end."""

    def __init__(self, leaves: Iterable[bytes] = ()) -> None:
        self.size = 0
        self._peaks: list[bytes] = []
        for each in leaves:
            self.append(each)

    def append(self, leaf: bytes) -> None:
        """Add one leaf hash, 32 bytes."""
        size, top = self.size, leaf
        while size & 1:
            top = node(self._peaks.pop(), top)
            size >>= 1
        self._peaks.append(top)
        self.size += 1

    @property
    def root(self) -> bytes:
        if not self._peaks:
            return h(b"")
        top = self._peaks[-1]
        for left in reversed(self._peaks[:-1]):
            top = node(left, top)
        return top

    def pack(self) -> bytes:
        """Return size u64 ‖ roots of the full subtrees, largest first, 32 bytes each."""
        return self.size.to_bytes(_SIZE_BYTES, "little") + b"".join(self._peaks)

    @classmethod
    def parse(cls, raw: bytes) -> Self:
        """Return the tree, ready to grow. Raises Rejected (merkle.tree)."""
        size, peaks = _numbered(raw, 1, "tree")
        if len(peaks) != size[0].bit_count():
            _refuse("tree", f"{len(peaks)} subtrees cannot hold {size[0]} leaves")
        tree = cls()
        tree.size, tree._peaks = size[0], peaks
        return tree


def root(leaves: Sequence[bytes]) -> bytes:
    return Tree(leaves).root


@dataclass(frozen=True, slots=True)
class InclusionProof:
    """The proof that a leaf has place `index` in a tree of `size` leaves."""

    index: int
    size: int
    path: tuple[bytes, ...]

    def pack(self) -> bytes:
        """Return index u64 ‖ size u64 ‖ path, 32 bytes each."""
        return _pack((self.index, self.size), self.path)

    @classmethod
    def parse(cls, raw: bytes) -> Self:
        """Raises Rejected (merkle.proof)."""
        (index, size), path = _numbered(raw, 2, "proof")
        return cls(index, size, tuple(path))


@dataclass(frozen=True, slots=True)
class ConsistencyProof:
    """The proof that a tree of `size` leaves begins with the tree of `old_size`."""

    old_size: int
    size: int
    path: tuple[bytes, ...]

    def pack(self) -> bytes:
        """Return old size u64 ‖ size u64 ‖ path, 32 bytes each."""
        return _pack((self.old_size, self.size), self.path)

    @classmethod
    def parse(cls, raw: bytes) -> Self:
        """Raises Rejected (merkle.proof)."""
        (old_size, size), path = _numbered(raw, 2, "proof")
        return cls(old_size, size, tuple(path))


def inclusion_proof(leaves: Sequence[bytes], index: int) -> InclusionProof:
    """Return the proof of leaf `index`, 0 ≤ index < len(leaves). Raises Rejected (merkle.index)."""
    if not 0 <= index < len(leaves):
        _refuse("index", f"no leaf {index} in a tree of {len(leaves)}")
    return InclusionProof(index, len(leaves), tuple(_path(leaves, index)))


def verify_inclusion(proof: InclusionProof, leaf: bytes, root: bytes) -> bool:
    """Whether the proof leads from this leaf hash to this root (RFC 9162 §2.1.3.2)."""
    if not 0 <= proof.index < proof.size:
        return False
    at, last, top = proof.index, proof.size - 1, leaf
    for beside in proof.path:
        if last == 0:
            return False
        if at & 1 or at == last:
            top = node(beside, top)
            while not at & 1 and at:
                at, last = at >> 1, last >> 1
        else:
            top = node(top, beside)
        at, last = at >> 1, last >> 1
    return last == 0 and top == root


def consistency_proof(leaves: Sequence[bytes], old_size: int) -> ConsistencyProof:
    """0 ≤ old_size ≤ len(leaves)."""
    if not 0 <= old_size <= len(leaves):
        _refuse("index", f"no tree of {old_size} in a tree of {len(leaves)}")
    path = _subproof(leaves, old_size, True) if 0 < old_size < len(leaves) else []
    return ConsistencyProof(old_size, len(leaves), tuple(path))


def verify_consistency(proof: ConsistencyProof, old_root: bytes, root: bytes) -> bool:
    """Whether the tree of `root` begins with that of `old_root` (RFC 9162 §2.1.4.2)."""
    if proof.old_size == 0 or proof.old_size == proof.size:
        known = old_root == (h(b"") if proof.old_size == 0 else root)
        return known and proof.size >= 0 and not proof.path
    if not 0 < proof.old_size < proof.size or not proof.path:
        return False
    path = list(proof.path)
    if proof.old_size & (proof.old_size - 1) == 0:
        path.insert(0, old_root)
    at, last = proof.old_size - 1, proof.size - 1
    while at & 1:
        at, last = at >> 1, last >> 1
    old, new = path[0], path[0]
    for beside in path[1:]:
        if last == 0:
            return False
        if at & 1 or at == last:
            old, new = node(beside, old), node(beside, new)
            while not at & 1 and at:
                at, last = at >> 1, last >> 1
        else:
            new = node(new, beside)
        at, last = at >> 1, last >> 1
    return last == 0 and old == old_root and new == root


def _split(size: int) -> int:
    """Return the greatest power of two below size (size ≥ 2)."""
    return 1 << (size - 1).bit_length() - 1


def _path(leaves: Sequence[bytes], index: int) -> list[bytes]:
    if len(leaves) == 1:
        return []
    k = _split(len(leaves))
    if index < k:
        return [*_path(leaves[:k], index), root(leaves[k:])]
    return [*_path(leaves[k:], index - k), root(leaves[:k])]


def _subproof(leaves: Sequence[bytes], old_size: int, whole: bool) -> list[bytes]:
    if old_size == len(leaves):
        return [] if whole else [root(leaves)]
    k = _split(len(leaves))
    if old_size <= k:
        return [*_subproof(leaves[:k], old_size, whole), root(leaves[k:])]
    return [*_subproof(leaves[k:], old_size - k, False), root(leaves[:k])]


def _pack(numbers: tuple[int, ...], path: Iterable[bytes]) -> bytes:
    return b"".join((*(n.to_bytes(_SIZE_BYTES, "little") for n in numbers), *path))


def _numbered(raw: bytes, count: int, what: str) -> tuple[list[int], list[bytes]]:
    """Return `count` numbers and the digests after them."""
    start = count * _SIZE_BYTES
    if len(raw) < start or (len(raw) - start) % DIGEST_BYTES:
        _refuse(what, f"{len(raw)} bytes are no {what}")
    numbers = [int.from_bytes(raw[at : at + _SIZE_BYTES], "little") for at in range(0, start, _SIZE_BYTES)]
    if max(numbers) >= MAX_LEAVES:
        _refuse(what, "a size is 2^53 or more")
    return numbers, [raw[at : at + DIGEST_BYTES] for at in range(start, len(raw), DIGEST_BYTES)]


def _refuse(why: str, message: str) -> NoReturn:
    raise Rejected(f"Merkle tree: {message}", code=f"merkle.{why}")
