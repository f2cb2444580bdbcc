"""Checks a copy of an audit chain, and its signed head, as docs/format.md §16 says."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import reader_shapes as shapes
from reader_crypto import ZERO32, h, signature_is_good

HEAD_TYPE = "application/vnd.lucid.audit-head.v1+json"
MAX_LINE, STEP_BACK_US = 8192, 5_000_000


def check_chain(lines: list[bytes]) -> list[str]:
    """Return what is wrong, line by line."""
    wrong, prev, before = [], ZERO32, None
    for number, line in enumerate(lines, 1):
        try:
            entry = shapes.parse_canonical(line, "audit.form")
        except Exception:
            wrong.append(f"{number}: not canonical")
            entry = None
        if entry is not None and len(line) <= MAX_LINE:
            if entry["number"] != number:
                wrong.append(f"{number}: has number {entry['number']}")
            if entry["prev"] != prev.hex():
                wrong.append(f"{number}: does not follow")
            elif (entry["time_us"], entry["set_back_us"]) != chain_time(before, entry["at_us"]):
                wrong.append(f"{number}: its time does not follow")
        prev, before = h(line), entry
    return wrong


def chain_time(before: dict[str, Any] | None, at_us: int) -> tuple[int, int]:
    if before is None:
        return at_us, 0
    time_us = at_us + before["set_back_us"]
    if time_us < before["time_us"] - STEP_BACK_US:
        return before["time_us"], before["time_us"] - at_us
    return max(time_us, before["time_us"]), before["set_back_us"]


def check_head(lines: list[bytes], envelope: bytes, signer: bytes) -> list[str]:
    """Return what is wrong with a head. signer: the public key that is trusted."""
    outer = shapes.parse_canonical(envelope, "head")
    payload = shapes.unbase64(outer["payload"], "head")
    head = shapes.parse_canonical(payload, "head")
    signature = shapes.unbase64(outer["signatures"][0]["sig"], "head")
    wrong = []
    if outer["payloadType"] != HEAD_TYPE or not signature_is_good(
        signer, shapes.pae(HEAD_TYPE, payload), signature
    ):
        wrong.append("not signed")
    if not 0 < head["number"] <= len(lines):
        wrong.append(f"names entry {head['number']} of {len(lines)}")
    elif h(lines[head["number"] - 1]).hex() != head["entry"]:
        wrong.append(f"entry {head['number']} is another one")
    return wrong


if __name__ == "__main__":
    found = check_chain(Path(sys.argv[1]).read_bytes().splitlines())
    print("\n".join(found) or "the chain holds")
    sys.exit(3 if found else 0)
