"""Gets a host its session: counter, signed request, start, genesis.

1. Order: counter durable → CREATED → data key → genesis durable → first fragment. After a crash anywhere the
   same call asks again with the same counter, and finds what exists.
2. The request is signed by the host's evidence key; what is frozen in it are the settings that decide bytes.
3. One host starts one session at a time (lock); recording them overlaps as it likes.
4. A session that nobody will ask for again is destroyed: it would keep a place of its host for good. Nothing
   is lost with it, for no fragment can be sent before the genesis is durable.
Source: docs/design.md §2 (Start), docs/format.md §2.
"""

import asyncio
import time
from contextlib import suppress
from typing import Any

from schemas.errors import LucidError, Unavailable
from schemas.events.commands import CREATE_PREFIX, Command, Create, Start, create_request
from schemas.events.session import SessionSettings
from schemas.format.fragment import MAIN, genesis, session_uid
from schemas.ports import HostIdentity, Identities, Jet
from streams.control.client import call
from streams.host.publisher import Grant

LOCK_S, AGAIN_S = 60.0, 0.05
"""A start takes less than 0.1 s: as many desktops of one host as there may be begin in the same minute."""
RESTART_S = 60.0
"""How long nobody may answer while a session is asked for: a service that restarts is soon back."""
GIVE_UP_S = 5.0
"""How long it is tried to destroy a session that was given up."""


async def start_session(
    jet: Jet,
    identities: Identities,
    host: str,
    session: str,
    settings: SessionSettings,
    *,
    once: bool = False,
) -> Grant:
    """Create and start a session; what is needed to write to it comes back.

    once: nobody asks for this name again when it is refused now.
    Raises Unavailable (host.locked: for LOCK_S), RefusedByState (the name was used), and what the command
    service raises.
    """
    with await _identity(identities, host) as me:
        counter, previous = me.begin(session), me.prev_genesis
        uid = session_uid(me.public, counter)
        asked = create_request(session, host, me.public, counter, previous, settings)
        create = Create(
            session=session,
            at_us=_now_us(),
            who=host,
            cause=f"create-{uid.hex()}",
            host=host,
            host_key=me.public,
            counter=counter,
            prev_genesis=previous,
            settings=settings,
            request=me.key.sign(CREATE_PREFIX + asked),
        )
        created = False
        try:
            await _answered(jet, "create", create)
            created = True
            start = Start(session=session, at_us=_now_us(), who=host, cause=f"start-{uid.hex()}")
            started = await _answered(jet, "start", start)
        except asyncio.CancelledError:  # also a create that is under way may be carried out
            await _give_up(jet, create, uid)
            raise
        except LucidError:
            if once and created:
                await _give_up(jet, create, uid)
            raise
        intake = bytes.fromhex(started["intake"])
        first = genesis(uid, MAIN, me.public, counter, previous, intake)
        me.settle(session, first)
        return Grant(session, host, uid, first, intake, me.key, settings.chunk_bytes)


async def _give_up(jet: Jet, create: Create, uid: bytes) -> None:
    """Destroy the session, if it is this one and not another's of its name."""
    said = {"session": create.session, "who": create.host, "reason": "never_recorded"}
    with suppress(TimeoutError):
        async with asyncio.timeout(GIVE_UP_S):
            while True:
                with suppress(LucidError):  # not there yet, or started meanwhile
                    if (await call(jet, "show", said))["uid"] == uid.hex():
                        await call(jet, "destroy", said)
                    return
                await asyncio.sleep(AGAIN_S)


async def _answered(jet: Jet, name: str, asked: Command) -> dict[str, Any]:
    """The answer, also of a service that restarts meanwhile: the same cause is carried out once."""
    end_s = time.monotonic() + RESTART_S
    while True:
        try:
            return await call(jet, name, asked.model_dump(mode="json"))
        except Unavailable as error:
            passes = error.code == "create.busy" or error.code.startswith("nats.")
            if not passes or time.monotonic() > end_s:
                raise
        await asyncio.sleep(AGAIN_S)


async def _identity(identities: Identities, host: str) -> HostIdentity:
    """Whoever else starts a session of this host is soon through."""
    end_s = time.monotonic() + LOCK_S
    while True:
        try:
            return identities(host)
        except Unavailable as error:
            if error.code != "host.locked" or time.monotonic() > end_s:
                raise
        await asyncio.sleep(AGAIN_S)


def _now_us() -> int:
    return time.time_ns() // 1000
