"""The stage `compress`: returns the payload of one chunk, or its plain bytes if compression does not pay."""

from handlers.format.compression import compress as encode
from handlers.stages.context import Context
from schemas.events.chunk import Compressed
from schemas.format.chunk_header import Codec
from schemas.format.digest import Buffer


def compress(run: int, plain: Buffer, context: Context) -> tuple[Compressed, Buffer]:
    """Return the event and the payload, with the session's frozen codec and level."""
    settings = context.settings
    codec, payload, build = encode(plain, Codec(settings.codec), settings.level, settings.threshold)
    return (
        Compressed(**context.claim(run), plain=len(plain), codec=codec, build=build, payload=len(payload)),
        payload,
    )
