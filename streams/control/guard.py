"""Verifies the token of each request to the command service, and permits the command.

1. The token comes off the request here: no handler, no event and no log line holds it.
2. A person's token is verified by the port Tokens, a host's by the evidence key that is registered for it.
   The request that registers a host brings the key itself, and is signed with it.
   A host's token is for one request, which names its cause: repeated by a stranger, it counts once.
3. If the caller reaches only sessions of its own, the session is read first: the table decides about it.
"""

from typing import Any

from handlers.access.commands import needs_session, permitted
from schemas.access import Caller, request_digest
from schemas.errors import Misuse, Unauthenticated
from schemas.ports import Tokens
from streams.event_store.host_log import HostLog
from streams.event_store.session_log import SessionLog

Body = dict[str, Any]
ADDRESS_MOST = 64
KEY_BYTES = 32


class Guard:
    """One for each process that answers commands."""

    def __init__(self, tokens: Tokens, hosts: HostLog) -> None:
        self._tokens, self._hosts = tokens, hosts

    async def identify(self, name: str, body: Body) -> tuple[Caller, Body]:
        """Return the caller, and the request without token and address. Raises Unauthenticated (access.*)."""
        token, address = body.get("token", ""), body.get("address", "")
        if not isinstance(token, str) or not isinstance(address, str) or len(address) > ADDRESS_MOST:
            raise Misuse(f"{name}: token and address are texts", code="command.form")
        asked = {key: value for key, value in body.items() if key not in ("token", "address")}
        host = self._tokens.host_of(token)
        if not host:
            return await self._tokens.caller(token, address), asked
        key = await self._hosts.key(host)
        if key is None and name == "create" and asked.get("host") == host:
            key = _key_in(asked)
        if key is None:
            raise Unauthenticated(
                f"host {host} is not registered", code="access.host_key", hint="it is when it first records"
            )
        if not isinstance(body.get("cause"), str) or not body["cause"]:
            raise Misuse(f"{name}: the request of a host names its cause", code="command.form")
        return self._tokens.host(token, key, request_digest(name, body), address), asked


async def permit_request(log: SessionLog, caller: Caller, name: str, asked: Body) -> Body:
    """Return the request as it may be carried out, with the members that the identity decides.

    Raises Denied (access.role, access.host), NotFound (session.absent).
    """
    session = None
    if needs_session(caller, name):
        session = await log.load(str(asked.get("session", "")))
    return permitted(caller, name, asked, session)


def _key_in(asked: Body) -> bytes | None:
    """The evidence key in a request to create; None: it is none."""
    try:
        key = bytes.fromhex(asked["host_key"])
    except (KeyError, TypeError, ValueError):
        return None
    return key if len(key) == KEY_BYTES else None
