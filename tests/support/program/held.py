"""What the recording stream holds of a session, asked of the server itself."""

import asyncio

import nats

from schemas.format.fragment import Kind, parse


def fragments(url: str, session: str) -> tuple[int, Kind | None]:
    """How many, and of which kind the last one is."""
    return asyncio.run(_fragments(url, session))


async def _fragments(url: str, session: str) -> tuple[int, Kind | None]:
    client = await nats.connect(url)
    try:
        stream = client.jetstream()
        for one in await stream.streams_info():
            name = one.config.name
            assert name is not None
            asked = await stream.stream_info(name, subjects_filter=f"lucid.rec.*.*.{session}")
            for subject, count in (asked.state.subjects or {}).items():
                last = await stream.get_last_msg(name, subject)
                assert last.data is not None
                return count, parse(last.data).header.kind
        return 0, None
    finally:
        await client.close()
