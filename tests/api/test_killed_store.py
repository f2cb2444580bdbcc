"""session-storage that is killed in the middle of a chunk: a real process, a real disk."""

import asyncio
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from infra.disk.data_dir import DataDir
from infra.jetstream import Jet
from infra.nats_server.server import NatsServer
from schemas.format.file_names import stored_chunk
from tests.support.evidence.installed_session import install
from tests.support.evidence.recorded_session import NAME, RecordedSession

ROOT = Path(__file__).parents[2]
SERVED = """
import asyncio, sys
from pathlib import Path
from infra.jetstream import connect
from tests.api.test_chunk_service import world_of

async def main():
    jet = await connect(sys.argv[1], name="storage")
    async with world_of(jet, Path(sys.argv[2])) as world:
        print(world.port, world.bearer.strip(), flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.mark.parametrize("part", [0.1, 0.5, 1.0])
async def test_a_store_that_is_killed_keeps_the_whole_chunk_or_nothing(
    server: NatsServer, jet: Jet, tmp_path: Path, part: float
) -> None:
    """Breaks: half a chunk stands in the place of the whole one, and is never replaced."""
    data = DataDir(tmp_path / "data")
    held = await install(jet, data, RecordedSession(fragments=6), live=True)
    body, where = held.files[0], f"/chunks/{NAME}/0"
    child, port, bearer = await asyncio.to_thread(started, server.url, tmp_path)
    head = f"PUT {where} HTTP/1.1\r\nHost: x\r\n{bearer}\r\nContent-Length: {len(body)}\r\n\r\n"
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(head.encode() + body[: int(part * len(body))])
    await writer.drain()
    await asyncio.to_thread(killed, child)
    writer.close()
    files = [path for path in data.chunks.rglob("*") if path.is_file()]
    name = stored_chunk(held.uid, 0)
    assert [(path.relative_to(data.chunks).as_posix(), path.read_bytes()) for path in files] in (
        [],
        [(name, body)],
    )
    child, port, bearer = await asyncio.to_thread(started, server.url, tmp_path)
    header, _, value = bearer.partition(": ")
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", headers={header: value}) as client:
        put = await client.put(where, content=body)
        assert put.status_code == (200 if files else 201)
        assert (await client.get(where)).content == body
    await asyncio.to_thread(killed, child)


def started(url: str, path: Path) -> tuple["subprocess.Popen[str]", int, str]:
    """The process, its port, and the header of its administrator."""
    command = [sys.executable, "-c", SERVED, url, str(path)]
    child = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    port, _, bearer = child.stdout.readline().strip().partition(" ")
    return child, int(port), bearer


def killed(child: "subprocess.Popen[str]") -> None:
    child.kill()
    child.communicate()
