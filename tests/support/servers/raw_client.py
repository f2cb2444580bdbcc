"""A NATS client without a driver: it publishes what no driver would."""

import asyncio
import json
from urllib.parse import urlsplit

from infra.nats_server.server import NatsServer


async def publish_raw(server: NatsServer, subject: str, *blocks: bytes) -> None:
    """Publish nothing, once under each header block as it is: a host need not use a driver."""
    url = urlsplit(server.url)
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    await reader.readline()
    login = {"user": url.username, "pass": url.password, "headers": True, "verbose": False, "protocol": 1}
    writer.write(f"CONNECT {json.dumps(login)}\r\n".encode())
    for block in blocks:
        writer.write(f"HPUB {subject} {len(block)} {len(block)}\r\n".encode() + block + b"\r\n")
    writer.write(b"PING\r\n")
    assert await reader.readline() == b"PONG\r\n"
    writer.close()
    await writer.wait_closed()
