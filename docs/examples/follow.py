"""Follows the stored chunks of one session: `python docs/examples/follow.py SESSION`.

Prints one JSON line for each chunk and ends when the session is complete. It decrypts nothing.
A stored event may come twice and in any order: readers fold events by chunk index.
"""

import asyncio
import json
import sys

from schemas import subjects
from schemas.events.chunk import Ended, Stored
from schemas.events.upcast import read_chunk_event
from schemas.format.index import Entry
from schemas.ports.messages import Message
from streams.cli.attach import attached


async def main(session: str) -> None:
    filters = [subjects.chunk(step, session) for step in ("recorded", "stored")]
    stored: set[int] = set()
    chunks: int | None = None
    async with attached() as jet:
        async for item in jet.follow(subjects.CHUNKS, filters):
            if not isinstance(item, Message):
                continue  # a new connection; nothing was skipped
            match read_chunk_event(item.data):
                case Stored(index=index, entry=raw) if index not in stored:
                    stored.add(index)
                    entry = Entry.parse(raw)
                    line = {"chunk": index, "sealed_bytes": entry.sealed, "digest": entry.digest.hex()}
                    print(json.dumps(line), flush=True)
                case Ended(chunks=chunks):
                    pass
            if len(stored) == chunks:
                return


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
