"""What strangers and insiders change in evidence, each by itself; for tests. `CHANGES` has them by weight."""

import base64
import contextlib
import copy
import json
import random
from collections.abc import Iterator
from typing import Any

from schemas.errors import LucidError
from schemas.format import fragment
from schemas.format.digest import h
from schemas.format.jcs import jcs
from tests.support.evidence.evidence_case import another, put
from tests.support.evidence.hostile_drafts import Draft, Json, text, text_signed
from tests.support.evidence.recorded_session import SIGNER

Draw = random.Random
NUMBERS = (
    *(0, 1, -1, 2, 7, 255, 2**16 - 1, 2**16, 2**31, 2**32 - 1, 2**32, 2**52, 2**53 - 2, 2**53 - 1),
    *(-(2**53) + 1, 2**53, 2**63, 2**64, 10**30),
)
STRANGE: tuple[Any, ...] = (None, True, False, [], {}, "", 1.5, "x", [[]], {"x": {}}, "\u0000", "é", "0" * 64)


def one_of(draw: Draw, manifest: Json) -> tuple[Any, ...]:
    return draw.choice(list(every_leaf(manifest)))


def every_leaf(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if isinstance(value, dict):
        for name, member in value.items():
            yield from every_leaf(member, (*path, name))
    elif isinstance(value, list):
        for number, member in enumerate(value):
            yield from every_leaf(member, (*path, number))
    else:
        yield path


def holders(value: Any) -> Iterator[Any]:
    """Every object and list within."""
    if isinstance(value, dict | list):
        yield value
        for member in value.values() if isinstance(value, dict) else value:
            yield from holders(member)


def lists_of(value: Any) -> list[list[Any]]:
    return [one for one in holders(value) if isinstance(one, list) and one]


def at(value: Any, path: tuple[Any, ...]) -> Any:
    for step in path:
        value = value[step]
    return value


def change_value(draw: Draw, draft: Draft, others: list[Draft]) -> None:
    manifest = draw.choice(draft.manifests)
    path = one_of(draw, manifest)
    old = at(manifest, path)
    match draw.randrange(5):
        case 0:
            new = another(old) if isinstance(old, str | int) else draw.choice(STRANGE)
        case 1:
            new = draw.choice(NUMBERS)
        case 2:
            new = draw.choice(STRANGE)
        case 3:
            same = [at(manifest, p) for p in every_leaf(manifest) if type(at(manifest, p)) is type(old)]
            new = draw.choice(same)
        case _:
            new = old + draw.choice((-1, 1, 2, -2, 64)) if type(old) is int else flipped_text(draw, old)
    put(manifest, path, lambda _: new)


def flipped_text(draw: Draw, old: Any) -> Any:
    if not isinstance(old, str) or not old:
        return old
    place = draw.randrange(len(old))
    return old[:place] + draw.choice("0123456789abcdefAZ+/=") + old[place + 1 :]


def change_list(draw: Draw, draft: Draft, others: list[Draft]) -> None:
    manifest = draw.choice(draft.manifests)
    lists = lists_of(manifest)
    if not lists:
        return
    chosen = draw.choice(lists)
    place, second = draw.randrange(len(chosen)), draw.randrange(len(chosen))
    match draw.randrange(7):
        case 0:
            del chosen[place]
        case 1:
            chosen.insert(second, copy.deepcopy(chosen[place]))
        case 2:
            chosen[place], chosen[second] = chosen[second], chosen[place]
        case 3:
            chosen.reverse()
        case 4:
            chosen.clear()
        case 5:
            del chosen[place:]
        case _:
            foreign = lists_of(draw.choice(others).manifests[0])
            chosen.insert(place, copy.deepcopy(draw.choice(draw.choice(foreign))))


def change_object(draw: Draw, draft: Draft, others: list[Draft]) -> None:
    objects = [one for one in holders(draw.choice(draft.manifests)) if isinstance(one, dict) and one]
    chosen = draw.choice(objects)
    name, second = draw.choice(list(chosen)), draw.choice(list(chosen))
    match draw.randrange(5):
        case 0:
            del chosen[name]
        case 1:
            chosen["x" + name] = chosen[name]
        case 2:
            chosen[name], chosen[second] = chosen[second], chosen[name]
        case 3:
            chosen[name] = nested(draw)
        case _:
            chosen["after"] = {"header": "00" * 96, "body_digest": "00" * 32, "signature": "00" * 64}


def nested(draw: Draw) -> Any:
    value: Any = []
    for _ in range(draw.choice((5, 50, 400))):
        value = [value] if draw.random() < 0.5 else {"a": value}
    return value


def take_section(draw: Draw, draft: Draft, others: list[Draft]) -> None:
    """A member as another session, or another seal, has it."""
    other, manifest = draw.choice(others), draw.choice(draft.manifests)
    foreign = draw.choice(other.manifests)
    for name in draw.sample(list(foreign), draw.choice((1, 1, 2, 5))):
        manifest[name] = copy.deepcopy(foreign[name])


def drop_track(draw: Draw, draft: Draft, others: list[Draft]) -> None:
    """Everything of a track in some lists, but not in all."""
    manifest, track = draw.choice(draft.manifests), draw.randrange(2)
    for name in draw.sample(("chunks", "parts", "gaps", "tracks", "equivocations"), draw.randrange(1, 6)):
        key = "id" if name == "tracks" else "track"
        if isinstance(manifest.get(name), list):
            kept = [item for item in manifest[name] if not isinstance(item, dict) or item.get(key) != track]
            manifest[name] = kept


def retrack(draw: Draw, draft: Draft, others: list[Draft]) -> None:
    """One digit: of another track, or a track more or less."""
    manifest = draw.choice(draft.manifests)
    for item in manifest["chunks"] if isinstance(manifest.get("chunks"), list) else []:
        if isinstance(item, dict) and draw.random() < 0.5:
            item["track"] = draw.choice((0, 1, 2, 0xFFFF))
    if draw.random() < 0.5:
        manifest["tracks"] = [{"id": n, "genesis": "00" * 32} for n in range(draw.randrange(3))]


def own_end(draw: Draw, draft: Draft, others: list[Draft]) -> None:
    """An end of the signer's, naming what is listed, or nearly so."""
    manifest = draw.choice(draft.manifests)
    tails: dict[int, Json] = {}
    try:
        for item in manifest["chunks"]:
            known = tails.setdefault(item["track"], {"id": item["track"], "plain": 0})
            known |= {"last_seq": item["last_seq"], "head": item["last_head"]}
            known["plain"] += item["plain"]
        said = {"end": "aborted", "reason": "x", "tracks": [tails[track] for track in sorted(tails)]}
        if draw.random() < 0.3:
            said["tracks"] = draw.choice(([], [{"id": 1, "last_seq": 0, "head": "00" * 32, "plain": 0}]))
        uid, body = bytes.fromhex(manifest["uid"]), jcs(said)
        raw = fragment.Header(fragment.Kind.END, 0, 0, 0, uid, 0, 5, len(body), bytes(32)).pack()
    except (LucidError, KeyError, TypeError, ValueError, AttributeError):
        return
    signature = SIGNER.sign(fragment.END_SIGNED + fragment.head(raw, h(body)))
    ending = base64.b64encode(raw + body + signature).decode()
    manifest |= {"end": "aborted", "reason": "x", "ended_us": 5, "ending": ending}


def change_chunks(draw: Draw, draft: Draft, others: list[Draft]) -> None:
    if not draft.chunks:
        return
    one, two = draw.choice(list(draft.chunks)), draw.choice(list(draft.chunks))
    sealed = draft.chunks[one]
    match draw.randrange(8):
        case 0:
            del draft.chunks[one]
        case 1:
            draft.chunks[one], draft.chunks[two] = draft.chunks[two], sealed
        case 2:
            draft.chunks[one] = sealed[: draw.randrange(len(sealed))]
        case 3:
            draft.chunks[one] = sealed + bytes(draw.randrange(1, 99))
        case 4:
            draft.chunks[draw.choice((99, 2**31, 9_999_999_999))] = sealed
        case 5:
            foreign = draw.choice(others).chunks
            draft.chunks[one] = draw.choice(list(foreign.values()))
        case 6:
            draft.chunks[one] = flipped(draw, sealed)
        case _:
            draft.chunks[one] = b""


def flipped(draw: Draw, raw: bytes) -> bytes:
    if not raw:
        return b"x"
    broken = bytearray(raw)
    for _ in range(draw.choice((1, 1, 1, 8))):
        broken[draw.randrange(len(raw))] ^= 1 << draw.randrange(8)
    return bytes(broken)


def change_history(draw: Draw, draft: Draft, others: list[Draft]) -> None:
    lines = draft.lines
    if not lines:
        return
    one, two = draw.randrange(len(lines)), draw.randrange(len(lines))
    match draw.randrange(9):
        case 0:
            del lines[one]
        case 1:
            lines[one], lines[two] = lines[two], lines[one]
        case 2:
            lines.insert(one, lines[two])
        case 3:
            lines[one] = flipped(draw, lines[one])
        case 4:
            lines[0] = draw.choice(others).lines[0]
        case 5:
            lines.append(draw.choice((b"{}\n", b"{}", b"x\n", b'{"type":"Sealed"}\n', b"[" * 9000 + b"\n")))
        case 6:
            lines[:] = lines[: draw.randrange(len(lines))]
        case 7:
            lines[one] = jcs(draw.choice(({"type": "Created"}, {"type": 1}, [], 5))) + b"\n"
        case _:
            with contextlib.suppress(ValueError):
                event = json.loads(lines[one])
                place = draw.choice(list(every_leaf(event)))
                put(event, place, lambda _: draw.choice((*NUMBERS, *STRANGE)))
                lines[one] = text(event) + b"\n"


def change_trust(draw: Draw, draft: Draft, others: list[Draft]) -> None:
    keys = draft.trust["keys"]
    if not keys:
        return
    key = draw.choice(keys)
    match draw.randrange(8):
        case 0:
            keys.remove(key)
        case 1:
            key["role"] = draw.choice(("host", "signer", "root"))
        case 2:
            key["revoked_us"] = draw.choice((0, 1, -1, 2**52))
        case 3:
            key["from_us"], key["until_us"] = draw.choice(NUMBERS), draw.choice(NUMBERS)
        case 4:
            key["name"] = draw.choice(("host-1", "signer-1", "x", "é"))
        case 5:
            keys.append(copy.deepcopy(key))
        case 6:
            first, last = draw.choice(keys), draw.choice(keys)
            first["key"], last["key"] = last["key"], first["key"]
        case _:
            put(draft.trust, draw.choice(list(every_leaf(draft.trust))), lambda _: draw.choice(STRANGE))


def change_seals(draw: Draw, draft: Draft, others: list[Draft]) -> None:
    manifests = draft.manifests
    match draw.randrange(5):
        case 0 if len(manifests) > 1:
            del manifests[draw.randrange(len(manifests))]
        case 1:
            manifests.append(copy.deepcopy(draw.choice(manifests)))
            manifests[-1]["seal_no"] = len(manifests)
        case 2:
            manifests.append(copy.deepcopy(draw.choice(others).manifests[-1]))
        case 3:
            manifests.reverse()
        case _:
            raw = text_signed(draw.choice(manifests))
            draft.envelopes[draw.choice((1, len(manifests), len(manifests) + 1))] = flipped(draw, raw)


WEIGHTS = {
    change_value: 6, change_list: 4, change_object: 2, take_section: 2, drop_track: 1, retrack: 1,
    own_end: 1, change_chunks: 2, change_history: 2, change_trust: 1, change_seals: 1,
}  # fmt: skip
CHANGES = [change for change, weight in WEIGHTS.items() for _ in range(weight)]
