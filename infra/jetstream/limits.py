"""Checks a NATS server at the start: message size, JetStream, the user's rights."""

from typing import Any

from infra.jetstream import declare, errors
from infra.jetstream.connection import Connection
from schemas.errors import Denied, Misuse, Unavailable
from schemas.ports.messages import Account

COMMAND_BYTES = 16 << 10
"""The largest command, and the smallest fragment. Services need more (streams.event_store.topology)."""


async def check(conn: Connection) -> None:
    """Raises Misuse (nats.max_payload), Unavailable (nats.no_jetstream)."""
    if conn.nc.max_payload < COMMAND_BYTES:
        raise too_small(conn.nc.shown, conn.nc.max_payload, COMMAND_BYTES)
    try:
        await account(conn)
    except Denied as error:
        if error.code != "nats.forbidden" or conn.denied is not None:
            raise
        # a host may have rights for its own subjects alone


async def account(conn: Connection) -> Account:
    """Return the use and the limits of this user's account.

    Raises Unavailable (nats.no_jetstream), Denied (nats.forbidden).
    """
    try:
        info: dict[str, Any] = await declare.api(conn, "INFO") or {}
    except Unavailable as error:
        if error.code != "nats.nobody":
            raise
        raise errors.no_jetstream(conn.nc.shown) from None
    most = info.get("limits") or {}
    return Account(
        streams=int(info.get("streams", 0)),
        max_streams=int(most.get("max_streams", -1)),
        bytes=int(info.get("storage", 0)),
        max_bytes=int(most.get("max_storage", -1)),
    )


def too_small(where: str, most: int, wanted: int) -> Misuse:
    return Misuse(
        f"the NATS server at {where} takes messages of at most {most} bytes; this program needs {wanted}",
        code="nats.max_payload",
        hint="raise max_payload in that server's configuration (1 MB is its default)",
    )
