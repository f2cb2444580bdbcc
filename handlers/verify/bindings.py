"""Lists the proof behind each member of a manifest, and the members that rest on the signer's word alone.

1. `BINDINGS` has one row for each member: a test walks the model, so a new member without its row fails.
2. No signer can change the facts that the host signed. Facts bound by the tree, the sums or the history
   change only together with them. `on_signers_word` lists the rest.
3. `contents` is in that list while no data key was given: the host signed fragments, and the signer names the
   sealed bytes that hold them.

Source: format.md §13.
"""

from schemas.format.manifest import Manifest

FORM = "form"
"""It has one value only, or follows from other members."""
HOST = "host"
"""The host's signature: over its request, a fragment, or a genesis in a fragment's header."""
TREE = "tree"
"""A digest of other evidence: a file, a leaf, the manifest before."""
HISTORY = "history"
"""Line 1 or the line of the seal has the same value."""
ENDING = "ending"
"""The ending fragment: the host signed a final, the signer an end."""
CONTENTS = "contents"
"""The host's signature once a data key opens the chunk; else the signer's word."""
WORD = "word"
"""The signer's word alone."""

BINDINGS: dict[str, str] = {
    "type": FORM,
    "version": FORM,
    "seal_no": HISTORY,
    "prev_manifest": TREE,
    "session": HOST,
    "uid": HOST,
    "dek_id": TREE,
    "settings.suite": HOST,
    "settings.codec": HOST,
    "settings.level": HOST,
    "settings.chunk_bytes": HOST,
    "settings.chunk_max_seconds": HOST,
    "host.name": HOST,
    "host.key": HOST,
    "host.counter": HOST,
    "host.prev_genesis": HOST,
    "host.intake": HOST,
    "host.attested": WORD,
    "signer.key": TREE,
    "signer.name": WORD,
    "started_us": WORD,
    "ended_us": ENDING,
    "sealed_us": WORD,
    "end": ENDING,
    "reason": ENDING,
    "lifecycle.last": HISTORY,
    "lifecycle.digest": HISTORY,
    "tracks.id": HOST,
    "tracks.genesis": HOST,
    "ending": ENDING,
    "parts.track": HOST,
    "parts.part": HOST,
    "parts.fragment": HOST,
    "chunks.index": FORM,
    "chunks.track": HOST,
    "chunks.part": HOST,
    "chunks.offset": CONTENTS,
    "chunks.plain": CONTENTS,
    "chunks.sealed": TREE,
    "chunks.first_us": CONTENTS,
    "chunks.last_us": HOST,
    "chunks.first_seq": HOST,
    "chunks.last_seq": HOST,
    "chunks.prev_head": HOST,
    "chunks.last_head": HOST,
    "chunks.digest": TREE,
    "chunks.codec": TREE,
    "chunks.build": WORD,
    "chunks.header": HOST,
    "chunks.body_digest": HOST,
    "chunks.signature": HOST,
    "gaps.track": HOST,
    "gaps.part": HOST,
    "gaps.first_seq": HOST,
    "gaps.last_seq": HOST,
    "gaps.head_before": HOST,
    "gaps.prev_head_after": HOST,
    "gaps.by": WORD,
    "gaps.reason": WORD,
    "gaps.after.header": HOST,
    "gaps.after.body_digest": HOST,
    "gaps.after.signature": HOST,
    "equivocations.track": HOST,
    "equivocations.seq": HOST,
    "equivocations.a": HOST,
    "equivocations.b": HOST,
    "merkle.tree_size": TREE,
    "merkle.root": TREE,
    "totals.chunks": FORM,
    "totals.index_chunks": FORM,
    "totals.fragments": FORM,
    "totals.plain": FORM,
    "totals.sealed": FORM,
    "index.index": FORM,
    "index.track": FORM,
    "index.part": FORM,
    "index.offset": FORM,
    "index.plain": TREE,
    "index.sealed": TREE,
    "index.first_us": FORM,
    "index.last_us": FORM,
    "index.first_seq": FORM,
    "index.last_seq": FORM,
    "index.prev_head": FORM,
    "index.last_head": FORM,
    "index.digest": TREE,
}


def on_signers_word(manifest: Manifest, *, opened: bool) -> list[str]:
    """Return the members that only the signer's word vouches for, in the manifest's order.

    opened: a data key was given. `equivocations` is always among them: one may have been left out.
    """
    by_platform = manifest.end != "final"
    there = {"gaps": bool(manifest.gaps), "chunks": bool(manifest.chunks)}
    members = [
        path
        for path, by in BINDINGS.items()
        if there.get(path.split(".")[0], True) and (by == WORD or (by == ENDING and by_platform))
    ]
    if not manifest.tracks and not opened:
        members.append("host.intake")  # no fragment carries a genesis
    return [*members, "equivocations", *(() if opened else (CONTENTS,))]
