"""Records standard input as one session: `python docs/examples/record.py SESSION < recording.mp4`.

The bytes are sealed in this process. The running system is found as `lucid record` finds it.
"""

import asyncio
import os
import sys

from streams.cli.attach import attached
from streams.host.publisher import Publisher
from streams.host.session_start import start_session
from streams.roles.drivers import Installation


async def main(session: str) -> None:
    here = Installation.here()
    async with attached(serving=True) as jet:
        grant = await start_session(jet, here.identity, "example-host", session, here.settings.session())
        publisher = Publisher(jet, grant)
        try:
            await publisher.begin_part(encoder="opaque", reason="start")
            while block := await asyncio.to_thread(os.read, 0, publisher.block_bytes):
                await publisher.send(block)
            sent = await publisher.finish()
        finally:
            await publisher.close()
    print(f"{session}: {sent.fragments} fragments, {sent.plain} bytes are durable")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
