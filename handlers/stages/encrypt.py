"""The stage `encrypt`: seals one chunk (format.md §6)."""

from handlers.format.chunk import ChunkFields, seal_chunk
from handlers.stages.context import Context
from schemas.events.chunk import Compressed, Encrypted
from schemas.format.chunk_header import HEADER_BYTES, Codec, Suite
from schemas.format.digest import Buffer, h


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
