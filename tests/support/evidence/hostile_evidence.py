"""Restructures and changes evidence as strangers and insiders would; for tests.

1. A seed names one attack: a base, one to four changes, and what is made to fit afterwards (tree, totals,
   numbers, history, signatures). The insider holds the signer's key; the trust file is signed by its root.
2. What the two verifiers must answer is judged in hostile_verdicts.
"""

import contextlib
import copy
import json
import random
from typing import Any

from schemas.errors import LucidError
from schemas.format import dsse
from schemas.format.digest import h
from tests.support.evidence.evidence_case import mend
from tests.support.evidence.hostile_changes import CHANGES
from tests.support.evidence.hostile_drafts import Draft, Json, text, text_signed

Draw = random.Random


def fit(draw: Draw, draft: Draft) -> None:
    """Go on as a careful liar, as far as one can."""
    for manifest in draft.manifests:
        with contextlib.suppress(KeyError, TypeError, AttributeError, ValueError, IndexError, OverflowError):
            if draw.random() < 0.4:
                renumber(draft, manifest)
            if draw.random() < 0.5:
                follow_files(draft, manifest)
            if draw.random() < 0.8:
                mend(manifest)
    with contextlib.suppress(KeyError, TypeError, AttributeError, ValueError, IndexError, LucidError):
        if draw.random() < 0.7:
            retell(draft)
    with contextlib.suppress(KeyError, TypeError, AttributeError, ValueError, IndexError, LucidError):
        if draw.random() < 0.8:
            before = bytes(32)
            for number, manifest in enumerate(draft.manifests, 1):
                manifest |= {"seal_no": number, "prev_manifest": before.hex()}
                before = h(text_signed(manifest))


def renumber(draft: Draft, manifest: Json) -> None:
    """Indices and offsets as they must be; files move with their chunk."""
    offsets: dict[Any, int] = {}
    files = {}
    for index, item in enumerate((*manifest["chunks"], *manifest["index"])):
        if item["index"] in draft.chunks:
            files[index] = draft.chunks[item["index"]]
        item |= {"index": index, "offset": offsets.get(item["track"], 0)}
        offsets[item["track"]] = item["offset"] + item["plain"]
    draft.chunks = files


def follow_files(draft: Draft, manifest: Json) -> None:
    """Digests and lengths of what lies there."""
    for item in (*manifest["chunks"], *manifest["index"]):
        sealed = draft.chunks.get(item["index"])
        if sealed is not None and item["sealed"]:
            item |= {"digest": h(sealed).hex(), "sealed": len(sealed)}


def retell(draft: Draft) -> None:
    """A history that fits the manifests, but for what the host signed."""
    for manifest in draft.manifests:
        last, lines = manifest["lifecycle"]["last"], draft.lines
        started = json.loads(lines[last - 1]) | {
            "seal_no": manifest["seal_no"],
            "sealed_us": manifest["sealed_us"],
            "n": len(manifest["chunks"]),
            "signer": dsse.fingerprint(bytes.fromhex(manifest["signer"]["key"])).hex(),
        }
        lines[last - 1] = text(started) + b"\n"
    for manifest in draft.manifests:
        last = manifest["lifecycle"]["last"]
        manifest["lifecycle"]["digest"] = h(b"".join(draft.lines[:last])).hex()


def attack(seed: int, bases: dict[str, Draft]) -> tuple[str, Draft]:
    """The base's name, and what became of it."""
    draw = random.Random(seed)
    name = draw.choice(list(bases))
    others = [draft for other, draft in bases.items() if other != name]
    draft = copy.deepcopy(bases[name])
    if draw.random() < 0.5:
        draft.keys = None
    for _ in range(draw.choice((1, 1, 1, 2, 2, 3, 4))):
        with contextlib.suppress(KeyError, TypeError, AttributeError, ValueError, IndexError):
            draw.choice(CHANGES)(draw, draft, others)
    if draw.random() < 0.75:
        fit(draw, draft)
    return name, draft
