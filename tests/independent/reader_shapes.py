"""Strict JSON: canonical bytes, DSSE envelopes, and the exact members of every document.

1. A document is read only when its bytes equal RFC 8785 of what they parse to.
2. Every named member is present, no other; floats and null are refused everywhere.
3. A shape is a function that raises `Bad` with the path of the first member that is wrong.

Source: docs/format.md §1, §4 and §9 to §12.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable
from typing import Any

import rfc8785
from reader_bytes import ENTRY_FIELDS, INDEX_TRACK, JSON_LIMIT, MAX_FRAGMENT, MAX_PLAIN, SEALED_EXTRA
from reader_crypto import Bad, fingerprint, signature_is_good

MANIFEST_TYPE = "application/vnd.lucid.manifest.v1+json"
TRUST_TYPE = "application/vnd.lucid.trust.v1+json"
TOMBSTONE_TYPE = "application/vnd.lucid.tombstone.v1+json"
LABEL = re.compile(r"[A-Za-z0-9_.-]{1,100}")
BUILD = re.compile(r"[\x20-\x7e]{1,100}")

MAX_HISTORY_LINE = 65_536
MAX_METADATA = 65_536
MAX_ITEM = 8_192

Shape = Callable[[Any, str], None]


def jcs(value: Any) -> bytes:
    return rfc8785.dumps(value)


def _refuse(text: str) -> Any:
    raise ValueError(text)


def parse_canonical(raw: bytes, code: str) -> Any:
    """Return the value whose RFC 8785 form is `raw`; raises Bad `code`."""
    try:
        value = json.loads(raw.decode("utf-8"), parse_float=_refuse, parse_constant=_refuse)
        same = jcs(value) == raw
    except (ValueError, RecursionError, rfc8785.CanonicalizationError) as error:
        raise Bad(code, f"not strict JSON ({type(error).__name__})") from None
    if not same:
        raise Bad(code, "the JSON is not in its canonical form")
    if _holds_null(value):
        raise Bad(code, "null is refused")
    return value


def _holds_null(value: Any) -> bool:
    stack = [value]
    while stack:
        item = stack.pop()
        if item is None:
            return True
        if isinstance(item, dict):
            stack.extend(item.values())
        elif isinstance(item, list):
            stack.extend(item)
    return False


def unbase64(text: str, code: str) -> bytes:
    """Padded standard base64 that equals its own re-encoding; raises Bad `code`."""
    try:
        raw = base64.b64decode(text.encode("ascii"), validate=True)
    except ValueError:
        raise Bad(code, "not base64") from None
    if base64.b64encode(raw).decode() != text:
        raise Bad(code, "base64 is not in its canonical form")
    return raw


def pae(payload_type: str, payload: bytes) -> bytes:
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def build_envelope(
    payload: bytes, payload_type: str, public_key: bytes, sign: Callable[[bytes], bytes]
) -> bytes:
    signature = {
        "keyid": fingerprint(public_key),
        "sig": base64.b64encode(sign(pae(payload_type, payload))).decode(),
    }
    whole = {
        "payload": base64.b64encode(payload).decode(),
        "payloadType": payload_type,
        "signatures": [signature],
    }
    return jcs(whole)


def open_envelope(
    raw: bytes, payload_type: str, shape: Shape, key_of: Callable[[Any], str], code: str
) -> Any:
    """Return the payload of one signed document.

    key_of: where the payload names the key that must have signed it.
    Raises Bad with `code` + .json, .shape, .keyid or .signature.
    """
    envelope = parse_canonical(raw, code + ".json")
    ENVELOPE(envelope, code)
    if envelope["payloadType"] != payload_type or len(envelope["signatures"]) != 1:
        raise Bad(code + ".shape", "another payload type, or not one signature")
    payload = unbase64(envelope["payload"], code + ".json")
    value = parse_canonical(payload, code + ".json")
    shape(value, code)
    for member in value.values():
        for item in member if isinstance(member, list) else [member]:
            if len(jcs(item)) > MAX_ITEM:
                raise Bad(code + ".shape", f"an item is longer than {MAX_ITEM} bytes")
    key = bytes.fromhex(key_of(value))
    signature = envelope["signatures"][0]
    if signature["keyid"] != fingerprint(key):
        raise Bad(code + ".keyid", "keyid is not the fingerprint of the key in the payload")
    if not signature_is_good(key, pae(payload_type, payload), unbase64(signature["sig"], code + ".json")):
        raise Bad(code + ".signature", "the signature is false")
    return value


def _need(holds: bool, place: str, text: str) -> None:
    if not holds:
        raise Bad(place.split(".")[0].split("[")[0] + ".shape", f"{place}: {text}")


def whole(low: int = 0, high: int = JSON_LIMIT - 1) -> Shape:
    def check(value: Any, place: str) -> None:
        _need(
            type(value) is int and low <= value <= high, place, f"an integer from {low} to {high} is wanted"
        )

    return check


def hexed(size: int) -> Shape:
    form = re.compile(f"[0-9a-f]{{{2 * size}}}")

    def check(value: Any, place: str) -> None:
        _need(isinstance(value, str) and bool(form.fullmatch(value)), place, f"{size} bytes in lowercase hex")

    return check


def text(form: re.Pattern[str]) -> Shape:
    def check(value: Any, place: str) -> None:
        _need(
            isinstance(value, str) and bool(form.fullmatch(value)),
            place,
            f"text like {form.pattern} is wanted",
        )

    return check


def based(low: int, high: int | None = None) -> Shape:
    """Base64 of low to high bytes (exactly low without high)."""

    def check(value: Any, place: str) -> None:
        _need(isinstance(value, str), place, "base64 is wanted")
        code = place.split(".")[0].split("[")[0] + ".shape"
        _need(low <= len(unbase64(value, code)) <= (high or low), place, "another length is wanted")

    return check


def one_of(*allowed: Any) -> Shape:
    def check(value: Any, place: str) -> None:
        _need(
            any(type(value) is type(a) and value == a for a in allowed), place, f"one of {allowed} is wanted"
        )

    return check


def listed(item: Shape, most: int | None = None) -> Shape:
    def check(value: Any, place: str) -> None:
        _need(
            isinstance(value, list) and (most is None or len(value) <= most),
            place,
            "a bounded list is wanted",
        )
        for position, one in enumerate(value):
            item(one, f"{place}[{position}]")

    return check


def record(fields: dict[str, Shape], maybe: tuple[str, ...] = ()) -> Shape:
    def check(value: Any, place: str) -> None:
        _need(isinstance(value, dict), place, "an object is wanted")
        unknown = set(value) - set(fields)
        missing = set(fields) - set(value) - set(maybe)
        _need(not unknown, place, f"unknown members {sorted(unknown)}")
        _need(not missing, place, f"missing members {sorted(missing)}")
        for name, shape in fields.items():
            if name in value:
                shape(value[name], f"{place}.{name}")

    return check


LABELLED, U16, U32 = text(LABEL), whole(0, 2**16 - 1), whole(0, 2**32 - 1)
COUNT, TIME, DIGEST = whole(), whole(1 - JSON_LIMIT), hexed(32)
TRACK = whole(0, 1)

ENVELOPE = record(
    {
        "payload": text(re.compile(r"[A-Za-z0-9+/]*={0,2}")),
        "payloadType": text(BUILD),
        "signatures": listed(record({"keyid": DIGEST, "sig": based(64)}), 1),
    }
)
_ENTRY = {
    name: DIGEST if name in ("prev_head", "last_head", "digest") else TIME if name.endswith("_us") else COUNT
    for name in ENTRY_FIELDS
} | {"part": U32, "plain": whole(0, MAX_PLAIN), "sealed": whole(0, MAX_PLAIN + SEALED_EXTRA)}
_SIGNED = {"header": hexed(96), "body_digest": DIGEST, "signature": hexed(64)}
_FRAGMENT = based(160, MAX_FRAGMENT)
HEADS = listed(record({"id": TRACK, "last_seq": COUNT, "head": DIGEST, "plain": COUNT}), 2)
REASON = record({"reason": LABELLED})

MANIFEST = record(
    {
        "type": one_of("lucid.manifest"),
        "version": one_of(1),
        "seal_no": whole(1),
        "prev_manifest": DIGEST,
        "session": LABELLED,
        "uid": hexed(16),
        "dek_id": hexed(16),
        "settings": record(
            {
                "suite": one_of(1, 2),
                "codec": one_of(0, 1, 2, 3, 4),
                "level": whole(1 - JSON_LIMIT),
                "chunk_bytes": whole(1 << 18, MAX_PLAIN),
                "chunk_max_seconds": whole(1),
            }
        ),
        "host": record(
            {
                "name": LABELLED,
                "key": DIGEST,
                "counter": COUNT,
                "prev_genesis": DIGEST,
                "intake": DIGEST,
                "attested": one_of(True, False),
            }
        ),
        "signer": record({"key": DIGEST, "name": LABELLED}),
        "started_us": TIME,
        "ended_us": TIME,
        "sealed_us": TIME,
        "end": one_of("final", "aborted", "host_lost"),
        "reason": LABELLED,
        "lifecycle": record({"last": whole(1), "digest": DIGEST}),
        "tracks": listed(record({"id": TRACK, "genesis": DIGEST}), 2),
        "ending": _FRAGMENT,
        "parts": listed(record({"track": TRACK, "part": U32, "fragment": _FRAGMENT})),
        "chunks": listed(
            record(_ENTRY | {"track": TRACK, "codec": one_of(0, 1, 2, 3, 4), "build": LABELLED} | _SIGNED)
        ),
        "gaps": listed(
            record(
                {
                    "track": TRACK,
                    "part": U32,
                    "first_seq": COUNT,
                    "last_seq": COUNT,
                    "head_before": DIGEST,
                    "prev_head_after": DIGEST,
                    "by": one_of("host", "installation"),
                    "reason": LABELLED,
                    "after": record(_SIGNED),
                },
                maybe=("after",),
            )
        ),
        "equivocations": listed(record({"track": TRACK, "seq": COUNT, "a": based(192), "b": based(192)}), 16),
        "merkle": record({"tree_size": whole(1), "root": DIGEST}),
        "totals": record(dict.fromkeys(("chunks", "index_chunks", "fragments", "plain", "sealed"), COUNT)),
        "index": listed(record(_ENTRY | {"track": one_of(INDEX_TRACK)})),
    }
)
TRUST = record(
    {
        "type": one_of("lucid.trust"),
        "version": one_of(1),
        "serial": COUNT,
        "root": DIGEST,
        "issued_us": TIME,
        "expires_us": TIME,
        "keys": listed(
            record(
                {
                    "key": DIGEST,
                    "role": one_of("signer", "host"),
                    "name": LABELLED,
                    "from_us": TIME,
                    "until_us": TIME,
                    "revoked_us": TIME,
                }
            )
        ),
    }
)
TOMBSTONE = record(
    {
        "type": one_of("lucid.tombstone"),
        "version": one_of(1),
        "uid": hexed(16),
        "dek_id": hexed(16),
        "manifest": DIGEST,
        "who": LABELLED,
        "approver": LABELLED,
        "reason": LABELLED,
        "at_us": TIME,
        "places": listed(record({"place": LABELLED, "outcome": LABELLED})),
        "backups_until_us": TIME,
    }
)
CREATED = record({"host_key": DIGEST, "request": hexed(64)})
KEYS = record({"uid": hexed(16), "dek_id": hexed(16), "dek": DIGEST})
BODIES: dict[int, Shape] = {
    4: record({"from_us": TIME, "to_us": TIME, "frames": COUNT, "reason": LABELLED}),
    5: REASON,
    6: REASON,
    7: record({"tracks": HEADS}),
    8: record({"end": one_of("aborted", "host_lost"), "reason": LABELLED, "tracks": HEADS}),
}
PART_SETTINGS = record({"encoder": LABELLED, "reason": LABELLED})


def read_body(kind: int, body: bytes) -> Any:
    """Return the JSON of a clear body of kind 4 to 8; raises Bad fragment.body."""
    value = parse_canonical(body, "fragment.body")
    try:
        BODIES[kind](value, "fragment")
    except Bad as bad:
        raise Bad("fragment.body", bad.text) from None
    if kind >= 7 and [t["id"] for t in value["tracks"]] != sorted({t["id"] for t in value["tracks"]}):
        raise Bad("fragment.body", "tracks are not sorted by id, each once")
    return value
