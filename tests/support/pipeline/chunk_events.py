"""Makes the events of one chunk, from `recorded` to `stored`."""

from typing import Any

from schemas.events.chunk import (
    Chunked,
    ChunkEvent,
    Compressed,
    Encrypted,
    FoldState,
    Proven,
    Recorded,
    Stored,
)
from schemas.format.chunk_header import ChunkHeader, Codec, Suite
from schemas.format.index import Entry

UID, ZERO = bytes(16), bytes(32)


def state(fragments: int) -> FoldState:
    return FoldState(at=1, next_index=0, fragments=fragments, plain=0, tracks=())


def events_of(
    index: int, codec: int = 0, *, session: str = "s-1", uid: bytes = UID, run: int = 0
) -> list[ChunkEvent]:
    """The events of the six stages about one chunk of 1,000 plain bytes and one second."""
    named: dict[str, Any] = {"session": session, "uid": uid, "index": index, "run": run}
    payload = 900 if codec else 1000
    header = ChunkHeader(
        Suite.XCHACHA20_POLY1305, Codec(codec), 0, 0, UID, index, 0, 1000, payload, UID, bytes(24), ZERO
    ).pack()
    entry = Entry(index, 0, 0, 0, 1000, 1044, 0, 0, 0, 0, ZERO, ZERO, bytes([1]) * 32).pack()
    recorded = Recorded(
        **named,
        host="h",
        track=0,
        part=0,
        offset=0,
        plain=1000,
        closed_by="size",
        first_seq=3 * index,
        last_seq=3 * index + 2,
        first_us=(5 + index) * 1_000_000,
        last_us=(6 + index) * 1_000_000,
        prev_head=ZERO,
        last_head=ZERO,
        last_header=bytes(96),
        part_fragment=b"",
        rows=b"",
        stream=(1,),
        state=state(3 * (index + 1)),
    )
    return [
        recorded,
        Chunked(**named, recorded=1, plain=1000),
        Compressed(**named, recorded=1, plain=1000, codec=codec, build="b", payload=payload),
        Encrypted(**named, recorded=1, header=header, build="b", sealed=1044, digest=ZERO),
        Proven(**named, recorded=1, entry=entry, leaf=ZERO, build="b", codec=codec),
        Stored(**named, recorded=1, entry=entry, leaf=ZERO, build="b", codec=codec),
    ]
