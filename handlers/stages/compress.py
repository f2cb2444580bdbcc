"""Owns the stage `compress`: the payload of one chunk, or its plain bytes where a codec does not pay."""

from handlers.format.compression import compress as encode
from handlers.stages.context import Context
from schemas.events.chunk import Compressed
from schemas.format.chunk_header import Codec
from schemas.format.digest import Buffer


def compress(run: int, plain: Buffer, context: Context) -> tuple[Compressed, Buffer]:
    """Return the event and the payload, by the codec and level that the session froze."""
    settings = context.settings
    codec, payload, build = encode(plain, Codec(settings.codec), settings.level, settings.threshold)
    return (
        Compressed(**context.claim(run), plain=len(plain), codec=codec, build=build, payload=len(payload)),
        payload,
    )
