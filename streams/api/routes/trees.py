"""The routes to the Merkle tree of a session, its proofs, and its signed manifest."""

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request, Response

from schemas.api.chunks import ConsistencyShown, InclusionShown, Leaf, TreeShown
from schemas.errors import EvidenceFalse, RefusedByState
from schemas.format.file_names import stored_manifest
from schemas.format.index import Entry
from schemas.ports import OpenBlob
from streams.api.blob_answer import answer
from streams.api.looked import MANIFEST_READ, SessionId
from streams.api.problems import RESPONSES
from streams.api.routes.sessions import Parts
from streams.evidence.session_trees import SessionTree, existing

LEAVES_MOST = 1000
JSON = "application/json"
ENVELOPE: dict[int | str, dict[str, Any]] = {
    200: {"content": {JSON: {}}, "description": "The envelope. ETag: its digest."},
    206: {"content": {JSON: {}}, "description": "A range of it."},
    304: {"description": "The caller has it already."},
}
Size = Annotated[int, Query(ge=0, lt=2**53, description="Leaves of the tree.")]
AnySize = Annotated[int | None, Query(ge=0, lt=2**53, description="Leaves of the tree; without: all.")]
Index = Annotated[int, Path(ge=0, lt=2**53)]

router = APIRouter(prefix="/sessions", tags=["processor"], responses=RESPONSES)


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


@router.head("/{session_id}/manifest", name="head_manifest", response_class=Response, responses=ENVELOPE)
@router.get("/{session_id}/manifest", response_class=Response, responses=ENVELOPE, dependencies=MANIFEST_READ)
async def get_manifest(session_id: SessionId, request: Request, parts: Parts) -> Response:
    """The signed envelope of the newest seal, byte by byte as it is stored. ETag: its digest."""
    session = await existing(parts.log, session_id)
    if not session.sealed:
        raise RefusedByState(
            f"session {session_id} is {session.state}, not sealed: it has no manifest yet",
            code="evidence.unsealed",
        )
    seal = session.seals[-1]
    name = stored_manifest(session.uid, seal.seal_no)
    blob = await asyncio.to_thread(parts.evidence.manifests.open, name)
    if blob is None or not await _is(blob, seal.manifest):
        raise EvidenceFalse(
            f"the manifest of {session_id} in the store is not the one that was sealed",
            code="manifest.digest",
        )
    return answer(blob, f'"{seal.manifest.hex()}"', request.headers, JSON)


async def _is(blob: OpenBlob, digest: bytes) -> bool:
    """Whether the file has this digest; otherwise it is closed."""
    found = await asyncio.to_thread(blob.content)
    if found.digest == digest:
        return True
    blob.close()
    return False


def _leaf(tree: SessionTree, index: int) -> Leaf:
    entry = Entry.parse(tree.entries[index])
    return Leaf(index=index, leaf=tree.leaves[index].hex(), hash=None if entry.lost else entry.digest.hex())
