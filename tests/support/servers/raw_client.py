"""A NATS client without a driver: it publishes what no driver would."""

import asyncio
import json
from urllib.parse import urlsplit

from infra.nats_server.server import NatsServer
from tests.support.machine.waiting import PATIENCE_S


async def publish_raw(server: NatsServer, subject: str, *blocks: bytes) -> None:
    """Publish nothing, once under each header block as it is; return when the stream has all of them."""
    sizes = ((len(block), len(block), block) for block in blocks)
    commands = (b"HPUB %s acks %d %d\r\n%s\r\n" % (subject.encode(), *one) for one in sizes)
    await send_raw(server, *commands, acks=len(blocks))


async def send_raw(server: NatsServer, *commands: bytes, acks: int = 0) -> None:
    """Send commands as they are; return when the server has read them, and streams have acknowledged `acks`.

    A stream stores a message some time after the PONG that follows it. Only its ack says that it is there: a
    command asks for it with the reply subject `acks`.
    """
    url = urlsplit(server.url)
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    await reader.readline()
    login = {"user": url.username, "pass": url.password, "headers": True, "verbose": False, "protocol": 1}
    writer.write(f"CONNECT {json.dumps(login)}\r\nSUB acks 1\r\n".encode())
    writer.writelines(commands)
    writer.write(b"PING\r\n")
    read, acked = False, 0
    async with asyncio.timeout(PATIENCE_S):
        while not read or acked < acks:
            line = await reader.readline()
            assert line, "the server has closed the connection"
            assert not line.startswith(b"-ERR"), line
            read = read or line == b"PONG\r\n"
            acked += line.startswith(b"MSG acks ")
    writer.close()
    await writer.wait_closed()
