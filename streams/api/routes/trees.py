"""The routes to the Merkle tree of a session, its proofs, and its signed manifest."""

import asyncio
from typing import Annotated

from fastapi import APIRouter, Path, Query, Response

from schemas.api.chunks import ConsistencyShown, InclusionShown, Leaf, TreeShown
from schemas.format.index import Entry
from streams.api.answers import PROBLEMS, of_bytes, of_head
from streams.api.blob_answer import answer
from streams.api.conditions import OfGet, OfHead
from streams.api.looked import MANIFEST_READ, SessionId
from streams.api.routes.sessions import Parts
from streams.evidence.sealed_session import require_seal
from streams.evidence.session_trees import SessionTree, existing

LEAVES_MOST = 1000
JSON = "application/json"
ENVELOPE, ENVELOPE_HEAD = of_bytes(JSON, {}), of_head({})
Size = Annotated[int, Query(ge=0, lt=2**53, description="Leaves of the tree.")]
AnySize = Annotated[int | None, Query(ge=0, lt=2**53, description="Leaves of the tree; without: all.")]
Index = Annotated[int, Path(ge=0, lt=2**53)]

router = APIRouter(prefix="/sessions", tags=["processor"], responses=PROBLEMS)


@router.get("/{session_id}/merkle")
async def show_tree(
    session_id: SessionId,
    parts: Parts,
    after: Annotated[int, Query(ge=-1, lt=2**53, description="Only leaves above this index.")] = -1,
    limit: Annotated[int, Query(ge=1, le=LEAVES_MOST)] = 100,
) -> TreeShown:
    """Size, root and leaves. Of a live session: the chunks that are proven so far, from index 0 on."""
    tree = await parts.chunks.trees.of(session_id)
    shown = [_leaf(tree, index) for index in range(after + 1, min(after + 1 + limit, tree.size))]
    return TreeShown(
        session_id=session_id,
        uid=tree.session.uid.hex(),
        sealed=tree.is_sealed,
        tree_size=tree.size,
        root=(await asyncio.to_thread(lambda: tree.root)).hex(),
        leaves=shown,
        next=shown[-1].index if shown and shown[-1].index + 1 < tree.size else None,
    )


@router.get("/{session_id}/merkle/consistency")
async def show_consistency(
    session_id: SessionId,
    parts: Parts,
    old: Annotated[int, Query(alias="from", ge=0, lt=2**53, description="Leaves of the earlier tree.")],
    new: Annotated[
        int | None, Query(alias="to", ge=0, lt=2**53, description="Of the later; without: all.")
    ] = None,
) -> ConsistencyShown:
    """The proof that the tree of `to` leaves begins with that of `from` leaves."""
    tree = await parts.chunks.trees.of(session_id)
    proof = await asyncio.to_thread(tree.consistency, old, new)
    roots = await asyncio.to_thread(lambda: (tree.root_of(proof.old_size), tree.root_of(proof.size)))
    return ConsistencyShown(
        session_id=session_id,
        sealed=tree.is_sealed,
        from_size=proof.old_size,
        from_root=roots[0].hex(),
        to_size=proof.size,
        to_root=roots[1].hex(),
        path=[node.hex() for node in proof.path],
        proof=proof.pack().hex(),
    )


@router.get("/{session_id}/merkle/{index}")
async def show_inclusion(
    session_id: SessionId, index: Index, parts: Parts, size: AnySize = None
) -> InclusionShown:
    """The proof that chunk `index` is in the tree, or in the tree of the first `size` leaves."""
    tree = await parts.chunks.trees.of(session_id)
    proof = await asyncio.to_thread(tree.inclusion, index, size)
    return InclusionShown(
        session_id=session_id,
        sealed=tree.is_sealed,
        index=proof.index,
        tree_size=proof.size,
        root=(await asyncio.to_thread(tree.root_of, proof.size)).hex(),
        entry=tree.entries[index].hex(),
        leaf=tree.leaves[index].hex(),
        path=[node.hex() for node in proof.path],
        proof=proof.pack().hex(),
    )


@router.get("/{session_id}/manifest", response_class=Response, responses=ENVELOPE, dependencies=MANIFEST_READ)
async def get_manifest(session_id: SessionId, parts: Parts, asked: OfGet) -> Response:
    """The signed envelope of the newest seal, byte for byte as it is stored. ETag: its digest."""
    session = await existing(parts.log, session_id)
    require_seal(session)
    blob = await asyncio.to_thread(parts.evidence.open_manifest, session)
    return answer(blob, f'"{session.seals[-1].manifest.hex()}"', asked, JSON)


@router.head("/{session_id}/manifest", response_class=Response, responses=ENVELOPE_HEAD)
async def head_manifest(session_id: SessionId, parts: Parts, asked: OfHead) -> Response:
    """Length and ETag of the signed envelope."""
    return await get_manifest(session_id, parts, asked)


def _leaf(tree: SessionTree, index: int) -> Leaf:
    entry = Entry.parse(tree.entries[index])
    return Leaf(index=index, leaf=tree.leaves[index].hex(), hash=None if entry.lost else entry.digest.hex())
