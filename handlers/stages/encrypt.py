"""Owns the stage `encrypt`: one sealed chunk (format.md §6)."""

from handlers.chunks import ChunkFields, seal_chunk
from handlers.stages.context import Context
from schemas.chunk_events import Compressed, Encrypted
from schemas.digest import Buffer, h
from schemas.envelope import HEADER_BYTES, Codec, Suite


def encrypt(event: Compressed, payload: Buffer, context: Context) -> tuple[Encrypted, bytearray]:
    """Return the event and the sealed chunk: header ‖ ciphertext ‖ tag."""
    recorded = context.recorded
    fields = ChunkFields(
        uid=recorded.uid,
        index=recorded.index,
        track=recorded.track,
        part=recorded.part,
        offset=recorded.offset,
        codec=Codec(event.codec),
        plain=recorded.plain,
    )
    sealed = seal_chunk(Suite(context.settings.suite), context.keys.dek, fields, payload)
    return (
        Encrypted(
            **context.claim(event.run),
            header=bytes(sealed[:HEADER_BYTES]),
            build=event.build,
            sealed=len(sealed),
            digest=h(sealed),
        ),
        sealed,
    )
