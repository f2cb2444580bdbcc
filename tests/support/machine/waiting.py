"""Waiting for what comes by itself, and has no event of its own."""

import asyncio
from collections.abc import Callable

PATIENCE_S = 120.0
"""Only a hang takes longer, on a busy machine too."""


async def until(done: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not done():  # noqa: ASYNC110 - a test looks from outside
            await asyncio.sleep(0.005)
