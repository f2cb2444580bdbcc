"""Reads the body of a request piece by piece, within a bound of bytes and a least speed.

1. A declared length beyond the bound is refused before a byte is read; an undeclared one when it is passed.
2. A body that stands still, or drips, ends with 408. So nobody holds a place for long with few bytes.
3. Only the wait for the client counts. Bytes that came fast earn at most GRACE_S for later ones.
"""

import asyncio
from collections.abc import AsyncIterator

from fastapi import Request
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from schemas.errors import TooLarge

LEAST_RATE = 32 << 10
"""Bytes a second."""
GRACE_S = 30.0
"""How long a body may stand still. A slower body than LEAST_RATE uses it up, a faster one earns it back."""


async def arriving(request: Request, most: int | None = None) -> AsyncIterator[bytes]:
    """Yield the pieces of a body, none empty. most: its bytes at most; None: any number.

    Raises TooLarge (request.size), HTTPException 408 and 400.
    """
    declared = request.headers.get("content-length", "")
    if most is not None and declared.isdigit() and int(declared) > most:
        raise _too_large(most)
    clock = asyncio.get_running_loop().time
    pieces, taken, left_s = request.stream(), 0, GRACE_S
    while True:
        began_s = clock()
        try:
            async with asyncio.timeout(left_s):
                piece = await anext(pieces)
        except StopAsyncIteration:
            return
        except ClientDisconnect:  # nobody reads the answer; as an error of ours it would fill the log
            raise HTTPException(400, f"the client left after {taken} bytes of the body") from None
        except TimeoutError:
            raise HTTPException(408, f"the body came too slowly: {taken} bytes") from None
        taken += len(piece)
        left_s = min(left_s - (clock() - began_s) + len(piece) / LEAST_RATE, GRACE_S)
        if most is not None and taken > most:
            raise _too_large(most)
        if piece:
            yield piece


def _too_large(most: int) -> TooLarge:
    return TooLarge(f"a body of this route has at most {most} bytes", code="request.size")
