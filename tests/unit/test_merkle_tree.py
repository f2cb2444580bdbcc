import hashlib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers.format import merkle_tree
from schemas.errors import Rejected
from schemas.format.digest import h

LEAVES = [merkle_tree.leaf(bytes((n,))) for n in range(70)]
SIZES = [0, 1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65]


def _root(leaves: list[bytes]) -> bytes:
    """RFC 9162 §2.1.1, word for word."""
    if not leaves:
        return h(b"")
    if len(leaves) == 1:
        return leaves[0]
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    return h(b"\x01" + _root(leaves[:k]) + _root(leaves[k:]))


@pytest.mark.parametrize("size", SIZES)
def test_a_growing_tree_has_the_root_of_rfc_9162(size: int) -> None:
    """Breaks: every root already signed."""
    assert merkle_tree.Tree(LEAVES[:size]).root == _root(LEAVES[:size]) == merkle_tree.root(LEAVES[:size])
    assert merkle_tree.Tree(LEAVES[:size]).size == size


def test_the_shape_meets_the_known_roots_of_certificate_transparency(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Breaks: the shape; with SHA-256 in place of BLAKE3 the trees are those that CT logs test with."""
    monkeypatch.setattr(merkle_tree, "h", lambda data: hashlib.sha256(data).digest())
    entries = [
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    ]
    leaves = [merkle_tree.leaf(bytes.fromhex(entry)) for entry in entries]
    assert merkle_tree.root([]).hex() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert (
        merkle_tree.root(leaves[:1]).hex()
        == "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"
    )
    assert (
        merkle_tree.root(leaves).hex() == "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"
    )


@pytest.mark.parametrize("size", SIZES[1:])
def test_every_leaf_is_proven_and_no_other_place_or_leaf_is(size: int) -> None:
    """Breaks: one chunk could be shown in the place of another."""
    leaves = LEAVES[:size]
    root = merkle_tree.root(leaves)
    for index in range(size):
        proof = merkle_tree.inclusion_proof(leaves, index)
        assert merkle_tree.verify_inclusion(proof, leaves[index], root)
        assert not merkle_tree.verify_inclusion(proof, LEAVES[69], root)
        assert not merkle_tree.verify_inclusion(proof, leaves[index], bytes(32))
        assert not merkle_tree.verify_inclusion(
            replace(proof, path=(*proof.path, bytes(32))), leaves[index], root
        )
        assert not merkle_tree.verify_inclusion(replace(proof, index=size), leaves[index], root)
        assert not merkle_tree.verify_inclusion(replace(proof, index=-1), leaves[index], root)
        for other in range(size):
            if other != index:
                assert not merkle_tree.verify_inclusion(replace(proof, index=other), leaves[index], root)
        for cut in range(len(proof.path)):
            assert not merkle_tree.verify_inclusion(
                replace(proof, path=proof.path[:cut]), leaves[index], root
            )


@pytest.mark.parametrize("size", SIZES)
def test_a_tree_is_proven_to_begin_with_each_smaller_one(size: int) -> None:
    """Breaks: a sealed beginning could be rewritten by a later seal."""
    root = merkle_tree.root(LEAVES[:size])
    for old_size in range(size + 1):
        old_root = merkle_tree.root(LEAVES[:old_size])
        proof = merkle_tree.consistency_proof(LEAVES[:size], old_size)
        assert merkle_tree.verify_consistency(proof, old_root, root)
        assert not merkle_tree.verify_consistency(proof, bytes(32), root)
        if old_size:
            assert not merkle_tree.verify_consistency(proof, old_root, bytes(32))
        longer = replace(proof, path=(*proof.path, bytes(32)))
        assert not merkle_tree.verify_consistency(longer, old_root, root)
        if proof.path:
            shorter = replace(proof, path=proof.path[:-1])
            assert not merkle_tree.verify_consistency(shorter, old_root, root)
    too_old = merkle_tree.ConsistencyProof(size + 1, size, ())
    assert not merkle_tree.verify_consistency(too_old, root, root)


@given(st.integers(0, 69), st.integers(0, 69), st.data())
def test_a_changed_proof_proves_nothing(size: int, old: int, data: st.DataObject) -> None:
    """Breaks: a forged proof would pass."""
    size, old = max(size, old), min(size, old)
    proof = merkle_tree.consistency_proof(LEAVES[:size], old)
    if not proof.path:
        return
    at = data.draw(st.integers(0, len(proof.path) - 1))
    bit = data.draw(st.integers(0, 255))
    changed = bytearray(proof.path[at])
    changed[bit // 8] ^= 1 << bit % 8
    path = (*proof.path[:at], bytes(changed), *proof.path[at + 1 :])
    bad = replace(proof, path=path)
    assert not merkle_tree.verify_consistency(
        bad, merkle_tree.root(LEAVES[:old]), merkle_tree.root(LEAVES[:size])
    )


@pytest.mark.parametrize("size", SIZES)
def test_a_stored_tree_goes_on_growing(size: int) -> None:
    """Breaks: a restart would make another root."""
    tree = merkle_tree.Tree.parse(merkle_tree.Tree(LEAVES[:size]).pack())
    tree.append(LEAVES[69])
    assert tree.root == merkle_tree.root([*LEAVES[:size], LEAVES[69]])


def test_proofs_read_back() -> None:
    """Breaks: receipts that were handed out."""
    inclusion = merkle_tree.inclusion_proof(LEAVES[:21], 13)
    assert merkle_tree.InclusionProof.parse(inclusion.pack()) == inclusion
    consistency = merkle_tree.consistency_proof(LEAVES[:21], 13)
    assert merkle_tree.ConsistencyProof.parse(consistency.pack()) == consistency


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        bytes(7),
        bytes(9),
        (1).to_bytes(8, "little"),
        (3).to_bytes(8, "little") + bytes(32),
        (2).to_bytes(8, "little") + bytes(64),
        bytes(8) + bytes(32),
        (2**53).to_bytes(8, "little") + bytes(32),
    ],
)
def test_a_stored_tree_that_does_not_fit_is_refused(raw: bytes) -> None:
    """Breaks: a damaged file would give a root of its own."""
    with pytest.raises(Rejected) as caught:
        merkle_tree.Tree.parse(raw)
    assert caught.value.code == "merkle.tree"


@pytest.mark.parametrize("raw", [b"", bytes(15), bytes(17), bytes(47)])
def test_a_stored_proof_that_does_not_fit_is_refused(raw: bytes) -> None:
    """Breaks: a cut receipt would be read."""
    for kind in (merkle_tree.InclusionProof, merkle_tree.ConsistencyProof):
        with pytest.raises(Rejected):
            kind.parse(raw)


@pytest.mark.parametrize("index", [-1, 3])
def test_no_proof_is_made_for_a_leaf_that_is_not_there(index: int) -> None:
    """Breaks: a proof of something else would be handed out."""
    with pytest.raises(Rejected):
        merkle_tree.inclusion_proof(LEAVES[:3], index)
    with pytest.raises(Rejected):
        merkle_tree.consistency_proof(LEAVES[:3], index if index < 0 else 4)
