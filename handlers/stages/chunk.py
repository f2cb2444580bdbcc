"""The stage `chunk`: opens and joins the fragments of a closed chunk, in order (format.md §4, §6)."""

from collections.abc import Sequence

from handlers.format.fragment import open_data_into
from handlers.stages.context import Context
from schemas.buffers import unfilled
from schemas.errors import Rejected
from schemas.events.chunk import Chunked
from schemas.format.fragment import Fragment, parse


def chunk(run: int, fragments: Sequence[Fragment], context: Context) -> tuple[Chunked, bytearray]:
    """Return the event and the chunk's plain bytes.

    fragments: the chunk's data fragments in order of seq, as the host sent them.
    Raises Rejected (keys.part, fragment.tag, chunk.plain).
    """
    recorded = context.recorded
    plain = unfilled(recorded.plain)
    part_key = context.keys.open_part_key(parse(recorded.part_fragment)) if fragments else b""
    at = 0
    for fragment in fragments:
        if at + fragment.plain <= len(plain):
            open_data_into(part_key, fragment, memoryview(plain)[at:])
        at += fragment.plain
    if at != recorded.plain:
        raise Rejected(
            f"chunk {recorded.index} of {recorded.session}: its fragments hold {at} bytes, "
            f"record counted {recorded.plain}",
            code="chunk.plain",
        )
    return Chunked(**context.claim(run), plain=at), plain
