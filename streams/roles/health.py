"""The parts that each role depends on, and the look at each, for /health and /ready.

1. A role depends only on its own needs: session-processor and session-storage are ready without a pipeline.
2. Looks are cheap and change nothing. streams/api/dependencies.py bounds and remembers them.
"""

import asyncio
import time
from collections.abc import Collection
from contextlib import suppress
from functools import partial
from json import loads

from schemas import subjects
from schemas.errors import LucidError, Unauthenticated, Unavailable
from schemas.ports import Jet
from streams.api.dependencies import LOOK_S, Look
from streams.control.client import call
from streams.roles.drivers import Installation

STORE, PLATFORM = ("nats", "chunks", "keys"), ("nats", "commands", "views", "data", "chunks", "keys")
NEEDS: dict[str, tuple[str, ...]] = {
    "recorder": ("nats", "commands", "data"),
    "pipeline": (*PLATFORM, "workers", "stages"),
    "processor": STORE,
    "storage": STORE,
    "api": (*PLATFORM, "workers", "stages"),
}
"""Every role also needs `auth`, the keys of the auth service, where one is set."""
SILENT_S = 10.0
"""A worker that answered so lately is alive: one answer may take longer than a look when it is busy."""


OTHERS_S = 0.2
"""All conductors are asked, and the longest time counts: one that has just begun saw no stage stand still."""


def looks(here: Installation, jet: Jet, roles: Collection[str]) -> dict[str, Look]:
    """The look at each part that these roles need, by the name of the part."""
    every: dict[str, Look] = {
        "nats": jet.account,
        "commands": partial(_commands, jet),
        "views": here.views.active,
        "data": partial(asyncio.to_thread, here.data.check_writable),
        "chunks": partial(asyncio.to_thread, here.data.check_writable, "chunks"),
        "keys": partial(asyncio.to_thread, _keys, here),
        "workers": Workers(jet).look,
        "stages": partial(check_stages, jet),
    }
    needed = {part for role in roles for part in NEEDS[role]}
    found = {name: look for name, look in every.items() if name in needed}
    return {**found, "auth": here.tokens.check} if here.settings.jwt_jwks else found


class Workers:
    """When the worker of each partition answered last."""

    def __init__(self, jet: Jet) -> None:
        self._jet = jet
        self._heard_s = [float("-inf")] * subjects.PARTITIONS

    async def look(self) -> None:
        """Raises Unavailable (worker.silent), with the partitions in `place`."""
        await asyncio.gather(*map(self._ask, range(subjects.PARTITIONS)))
        now_s = time.monotonic()
        silent = [str(p) for p, heard_s in enumerate(self._heard_s) if now_s - heard_s > SILENT_S]
        if silent:
            raise Unavailable(
                f"no worker answers for {len(silent)} of {subjects.PARTITIONS} partitions",
                code="worker.silent",
                hint="start one: lucid serve worker",
                place=", ".join(silent),
            )

    async def _ask(self, p: int) -> None:
        with suppress(LucidError, TimeoutError):
            await self._jet.request(subjects.host_activity(p), b"", LOOK_S * 0.9)
            self._heard_s[p] = time.monotonic()


async def _commands(jet: Jet) -> None:
    """Return when commands are answered, or refused: this process may hold no token of its own."""
    with suppress(Unauthenticated):
        await call(jet, "ping", {}, LOOK_S)


async def check_stages(jet: Jet) -> None:
    """Ask the conductors whether every stage moves.

    Raises Unavailable (stage.stalled), with the stages in `place`; stage.unseen: no conductor knows, because
    none could look; other codes: no conductor answers.
    """
    answers = [await jet.request(subjects.STAGE_STATES, b"", LOOK_S)]

    def take(answer: bytes) -> bool:
        answers.append(answer)
        return False

    await jet.request_all(subjects.STAGE_STATES, b"", OTHERS_S, take)
    told = [state for answer in answers for state in loads(answer).items()]
    fresh = [(stage, one) for stage, one in told if not one.get("old", False)]  # absent: an older version
    if told and not fresh:
        age_s = min(one["age_s"] for _, one in told)
        raise Unavailable(
            f"the stages were not looked at for {age_s:g} s",
            code="stage.unseen",
            hint="look at the log of the conductor, and at the broker: lucid doctor",
        )
    stalled: dict[str, float] = {}
    for stage, one in fresh:
        if one["stalled"]:
            stalled[stage] = max(one["still_s"], stalled.get(stage, 0))
    if stalled:
        waiting = ", ".join(
            f"{stage} (finished nothing for {still_s} s)" for stage, still_s in stalled.items()
        )
        raise Unavailable(
            f"stages stand still while chunks wait for them: {waiting}",
            code="stage.stalled",
            hint="look at the log of the workers",
            place=", ".join(stalled),
        )


def _keys(here: Installation) -> None:
    if not here.key_folder.installation():
        raise Unavailable(
            "the folder of keys is missing or empty", code="keys.unmounted", hint="mount its disk"
        )
