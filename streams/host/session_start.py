"""Starts a session for a host: counter, signed request, start, genesis.

1. Order: counter durable → CREATED → data key → genesis durable → first fragment. After a crash anywhere the
   same call asks again with the same counter, and goes on from there. If nobody asks again, one number is
   lost.
2. The host's evidence key signs the request. It freezes the settings that decide bytes.
3. One host starts one session at a time (lock); recordings may overlap.
4. Personal fields go with the request, and the platform seals them under the session's key before it answers.
   The host's signature does not cover them. A request that is repeated after a crash changes none.
5. A session that nobody will ask for again is destroyed: it would use up a place of its host for good.
   Nothing is lost with it: no fragment can be sent before the genesis is durable.
Source: docs/design.md §2 (Start), docs/format.md §2.
"""

import asyncio
import secrets
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from schemas.errors import LucidError, Rejected
from schemas.events.commands import CREATE_PREFIX, Command, Create, Start, create_request
from schemas.events.details import Details
from schemas.events.session import CaptureSettings, SessionPolicy, SessionSettings
from schemas.format.fragment import MAIN, genesis, session_uid
from schemas.ports import Credential, HostIdentity, Identities, Jet
from streams.control.client import call
from streams.host.publisher import Grant
from streams.scheduling.clock import now_us
from streams.scheduling.retry import GIVE_UP, GIVE_UP_REFUSED, START, Policy, retry

GIVE_UP_S = 5.0
"""The time for destroying a session that was given up."""


@dataclass(frozen=True, slots=True)
class About:
    """The members of a new session that decide none of its bytes."""

    capture: CaptureSettings | None = None
    policy: SessionPolicy | None = None
    details: Details | None = None
    password: str | None = field(default=None, repr=False)
    """Of the RDP host."""

    def personal(self) -> dict[str, Any]:
        """The members of `create` that the platform seals. An older platform refuses them."""
        found: dict[str, Any] = {}
        if self.details is not None:
            found["details"] = self.details.model_dump(mode="json", exclude_none=True)
        if self.password is not None:
            found["password"] = self.password
        return found


NOTHING = About()


def new_name(host: str) -> str:
    """A name that no other recording of this host gets, not even in the same second."""
    return f"{host}-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(3)}"


async def start_session(
    jet: Jet,
    identities: Identities,
    host: str,
    session: str,
    settings: SessionSettings,
    *,
    once: bool = False,
    about: About = NOTHING,
) -> Grant:
    """Create and start a session, and return the grant to write to it.

    once: nobody asks for this name again if it is refused now.
    Raises Unavailable (host.locked, after START.for_s), RefusedByState (the name was used), and the errors of
    the command service.
    """
    with await locked_identity(identities, host) as me:
        counter, previous = me.begin(session), me.prev_genesis
        uid = session_uid(me.public, counter)
        asked = create_request(session, host, me.public, counter, previous, settings)
        create = Create(
            session=session,
            at_us=now_us(),
            who=host,
            cause=f"create-{uid.hex()}",
            host=host,
            host_key=me.public,
            counter=counter,
            prev_genesis=previous,
            settings=settings,
            request=me.key.sign(CREATE_PREFIX + asked),
            policy=about.policy,
            capture=about.capture,
        )
        personal, created = about.personal(), False
        try:
            await _answered(jet, "create", _body(create) | personal, me.credential)
            created = True
            start = Start(session=session, at_us=now_us(), who=host, cause=f"start-{uid.hex()}")
            started = await _answered(jet, "start", _body(start), me.credential)
        except asyncio.CancelledError:  # also a create that is under way may be carried out
            await _give_up(jet, create, uid, me.credential)
            raise
        except LucidError as error:
            # A refused `create` with personal fields may have made the session without them.
            if once and (created or personal):
                refused = not created and isinstance(error, Rejected)
                await _give_up(jet, create, uid, me.credential, GIVE_UP_REFUSED if refused else GIVE_UP)
            raise
        intake = bytes.fromhex(started["intake"])
        first = genesis(uid, MAIN, me.public, counter, previous, intake)
        me.settle(session, first)
        chunks = settings.chunk_bytes, me.credential, settings.chunk_max_seconds
        return Grant(session, host, uid, first, intake, me.key, *chunks)


async def _give_up(jet: Jet, create: Create, uid: bytes, me: Credential, policy: Policy = GIVE_UP) -> None:
    """Destroy the session, unless another one has its name. A host may: nothing is recorded into it.

    The host's lock is held meanwhile: no other session of the host starts.
    """
    request = {"session": create.session, "reason": "never_recorded"}

    async def attempt() -> None:
        if (await call(jet, "show", request, credential=me))["uid"] == uid.hex():
            await call(jet, "destroy", request, credential=me)

    with suppress(TimeoutError, LucidError):
        async with asyncio.timeout(GIVE_UP_S):  # the session may be absent yet, or start meanwhile
            await retry(attempt, policy, on_error=_ignore)


def _body(command: Command) -> dict[str, Any]:
    return command.model_dump(mode="json")


async def _answered(jet: Jet, name: str, body: dict[str, Any], me: Credential) -> dict[str, Any]:
    """The answer to a command, repeated while the service restarts: the same cause is carried out once."""
    return await retry(
        lambda: call(jet, name, body, credential=me),
        START,
        when=lambda error: error.code == "create.busy" or error.code.startswith("nats."),
        on_error=_ignore,
    )


async def locked_identity(identities: Identities, host: str) -> HostIdentity:
    """The host's identity, once no other start of this host holds it."""

    async def locked() -> HostIdentity:
        return identities(host)

    return await retry(locked, START, when=lambda error: error.code == "host.locked", on_error=_ignore)


def _ignore(_: LucidError) -> None:
    """The last error is raised when the time is up."""
