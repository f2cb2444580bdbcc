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

from schemas.errors import LucidError
from schemas.events.commands import CREATE_PREFIX, Command, Create, Start, create_request
from schemas.events.session import SessionSettings
from schemas.format.fragment import MAIN, genesis, session_uid
from schemas.ports import HostIdentity, Identities, Jet
from streams.control.client import call
from streams.host.publisher import Grant
from streams.scheduling.retry import START, retry

AGAIN_S = 0.05
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
    Raises Unavailable (host.locked, after START.for_s), RefusedByState (the name was used), and the errors of
    the command service.
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
    return await retry(
        lambda: call(jet, name, asked.model_dump(mode="json")),
        START,
        when=lambda error: error.code == "create.busy" or error.code.startswith("nats."),
        on_error=_unheard,
    )


async def _identity(identities: Identities, host: str) -> HostIdentity:
    """Whoever else starts a session of this host is soon through."""

    async def locked() -> HostIdentity:
        return identities(host)

    return await retry(locked, START, when=lambda error: error.code == "host.locked", on_error=_unheard)


def _unheard(_: LucidError) -> None:
    """The caller is told when the time is up."""


def _now_us() -> int:
    return time.time_ns() // 1000
