"""Hosts that sign what the format does not allow: one function each, for tests.

Each takes a sealer that has begun its track with a part and some data, and returns what that host sends next,
up to its final. Everything is rightly signed; whatever is wrong is wrong by the rules.
"""

import struct
from collections.abc import Callable
from dataclasses import replace

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from handlers.format.fragment import FragmentSealer
from schemas.format.digest import h
from schemas.format.fragment import HEADER_BYTES, SIGNATURE_BYTES, SIGNED, PartSettings, head

PART = PartSettings(encoder="none", reason="start")
FLAGS_AT, SEQ_AT, TIME_AT, LENGTH_AT = 6, 32, 40, 48
FAR = 1 << 50

Offence = Callable[[FragmentSealer, Ed25519PrivateKey, int], list[bytes]]


def signed(raw_header: bytes, body: bytes, key: Ed25519PrivateKey) -> bytes:
    """A fragment whose header may say anything."""
    return raw_header + body + key.sign(SIGNED + head(raw_header, h(body)))


def with_body(whole: bytes, body: bytes, key: Ed25519PrivateKey) -> bytes:
    """The same header over another body, of the length that it has."""
    raw = bytearray(whole[:HEADER_BYTES])
    raw[LENGTH_AT : LENGTH_AT + 4] = struct.pack("<I", len(body))
    return signed(bytes(raw), body, key)


def put(whole: bytes, at: int, value: bytes, key: Ed25519PrivateKey) -> bytes:
    """The same fragment with other bytes in its header."""
    raw = bytearray(whole[:HEADER_BYTES])
    raw[at : at + len(value)] = value
    return signed(bytes(raw), bytes(whole[HEADER_BYTES:-SIGNATURE_BYTES]), key)


def go_on(sealer: FragmentSealer, now_us: int, count: int = 3) -> list[bytes]:
    return [bytes(sealer.data(b"later", now_us)) for _ in range(count)]


def sent(sealer: FragmentSealer, whole: bytes) -> bytes:
    """A fragment that its host believes to be its last one so far."""
    top = head(bytes(whole[:HEADER_BYTES]), h(bytes(whole[HEADER_BYTES:-SIGNATURE_BYTES])))
    sealer.state = replace(sealer.state, head=top)
    return whole


def final(sealer: FragmentSealer, now_us: int) -> bytes:
    return bytes(sealer.final((), now_us))


# offences in the midst of a recording


def a_part_number_is_skipped(sealer: FragmentSealer, key: Ed25519PrivateKey, now_us: int) -> list[bytes]:
    sealer.state = replace(sealer.state, part=sealer.state.part + 1)
    return [bytes(sealer.part(PART, now_us)), *go_on(sealer, now_us), final(sealer, now_us)]


def a_part_number_is_skipped_and_a_right_one_follows(
    sealer: FragmentSealer, key: Ed25519PrivateKey, now_us: int
) -> list[bytes]:
    return [*a_part_number_is_skipped(sealer, key, now_us)[:-1], *_right(sealer, now_us)]


def _right(sealer: FragmentSealer, now_us: int) -> list[bytes]:
    return [bytes(sealer.part(PART, now_us)), *go_on(sealer, now_us), final(sealer, now_us)]


def a_part_number_comes_again(sealer: FragmentSealer, key: Ed25519PrivateKey, now_us: int) -> list[bytes]:
    first = [bytes(sealer.part(PART, now_us)), *go_on(sealer, now_us)]
    sealer.state = replace(sealer.state, part=sealer.state.part - 1)
    again = bytes(sealer.part(PART, now_us))
    return [*first, again, final(sealer, now_us)]


def a_clear_body_is_not_canonical(sealer: FragmentSealer, key: Ed25519PrivateKey, now_us: int) -> list[bytes]:
    body = b'{"reason": "blanks"}'
    bad = sent(sealer, with_body(bytes(sealer.pause("blanks", now_us)), body, key))
    return [bad, *go_on(sealer, now_us), final(sealer, now_us)]


def a_clear_body_is_too_long(sealer: FragmentSealer, key: Ed25519PrivateKey, now_us: int) -> list[bytes]:
    bad = sent(sealer, with_body(bytes(sealer.pause("long", now_us)), b"x" * 5000, key))
    return [bad, *go_on(sealer, now_us), final(sealer, now_us)]


def a_tick_has_a_flag(sealer: FragmentSealer, key: Ed25519PrivateKey, now_us: int) -> list[bytes]:
    bad = sent(sealer, put(bytes(sealer.tick(now_us)), FLAGS_AT, b"\1\0", key))
    return [bad, *go_on(sealer, now_us), final(sealer, now_us)]


def time_runs_backwards(sealer: FragmentSealer, key: Ed25519PrivateKey, now_us: int) -> list[bytes]:
    return [*go_on(sealer, -now_us), *go_on(sealer, 0), final(sealer, -1)]


def a_seq_is_far_ahead(sealer: FragmentSealer, key: Ed25519PrivateKey, now_us: int) -> list[bytes]:
    ahead = put(bytes(sealer.tick(now_us)), SEQ_AT, struct.pack("<Q", FAR), key)
    return [ahead, *go_on(sealer, now_us), final(sealer, now_us)]


def a_part_has_no_key(sealer: FragmentSealer, key: Ed25519PrivateKey, now_us: int) -> list[bytes]:
    bad = sent(sealer, with_body(bytes(sealer.part(PART, now_us)), b"\0" * 1172, key))
    return [bad, *go_on(sealer, now_us), final(sealer, now_us)]


# finals that end nothing


def a_final_that_is_not_canonical(sealer: FragmentSealer, key: Ed25519PrivateKey, now_us: int) -> list[bytes]:
    return [with_body(final(sealer, now_us), b'{"tracks": []}', key)]


def a_final_with_a_flag(sealer: FragmentSealer, key: Ed25519PrivateKey, now_us: int) -> list[bytes]:
    return [put(final(sealer, now_us), FLAGS_AT, b"\1\0", key)]


def a_final_of_too_many_bytes(sealer: FragmentSealer, key: Ed25519PrivateKey, now_us: int) -> list[bytes]:
    return [with_body(final(sealer, now_us), b"[" * 5000, key)]


def a_final_that_lies_of_bytes(sealer: FragmentSealer, key: Ed25519PrivateKey, now_us: int) -> list[bytes]:
    sealer.state = replace(sealer.state, plain=sealer.state.plain + 1)
    return [final(sealer, now_us)]


def a_final_behind_another_chain(sealer: FragmentSealer, key: Ed25519PrivateKey, now_us: int) -> list[bytes]:
    sealer.state = replace(sealer.state, head=bytes(range(32)))
    return [final(sealer, now_us)]


def a_final_of_a_time_that_is_none(
    sealer: FragmentSealer, key: Ed25519PrivateKey, now_us: int
) -> list[bytes]:
    return [put(final(sealer, now_us), TIME_AT, struct.pack("<q", 1 << 60), key)]


ABORTED: dict[Offence, str] = {
    a_part_number_is_skipped: "fragment.part",
    a_seq_is_far_ahead: "fragment.late",
    a_part_has_no_key: "fragment.part",
    a_final_that_is_not_canonical: "fragment.body",
    a_final_with_a_flag: "fragment.flags",
    a_final_of_too_many_bytes: "fragment.length",
    a_final_that_lies_of_bytes: "fragment.final",
    a_final_behind_another_chain: "fragment.chain",
    a_final_of_a_time_that_is_none: "fragment.range",
}
"""Offence → why the platform ends the recording."""
WHOLE: tuple[Offence, ...] = (
    a_part_number_comes_again,
    a_part_number_is_skipped_and_a_right_one_follows,
    a_clear_body_is_not_canonical,
    a_clear_body_is_too_long,
    a_tick_has_a_flag,
    time_runs_backwards,
)
"""Offences after which the host's final ends the recording."""
