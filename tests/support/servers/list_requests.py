"""Requests for lists of sessions, and the log that they are asked about.

tests/vectors/list_requests.json holds them, made once by `requests`.
"""

import random
from typing import Any

from schemas.events import commands
from schemas.events.details import Details
from schemas.events.session import State
from schemas.ports.read_models import Sort
from tests.support.servers.described import SECOND_US, START_US, Described

SESSIONS = 90
ON = "the cursor of the answer before"
"""In place of a cursor."""
PEOPLE = ("ada", "grace", "linus")
NAMES = ("Evening till", "Morning till", "Night audit", "Zürich Straße", "")


def requests(count: int) -> list[dict[str, Any]]:
    """So many requests; some go on with the page of the request before."""
    chance, made = random.Random(11), list[dict[str, Any]]()
    while len(made) < count:
        asked = _request(chance)
        made.append(asked)
        made += [{**asked, "cursor": ON} for _ in range(chance.randint(0, 2))]
    return made[:count]


def _request(chance: random.Random) -> dict[str, Any]:
    states = [State.CREATED, State.ACTIVE, State.STOPPED, State.ERROR, State.DESTROYED]
    from_us = START_US + chance.randint(0, 400) * SECOND_US
    choices: dict[str, Any] = {
        "state": chance.choice([chance.choice(states), chance.sample(states, 2)]),
        "host": chance.choice(["http-upload", "host-1"]),
        "opened_by": chance.choice(PEOPLE),
        "text": chance.choice(["s-", "-1", "desk", "s-007", "%", "_"]),
        "from_us": from_us,
        "before_us": from_us + chance.randint(0, 300) * SECOND_US,
        "sealed": chance.random() < 0.5,
        "owner": chance.choice([*PEOPLE, "Ada"]),
        "tags": chance.sample(["red", "GREEN"], chance.randint(1, 2)),
        "project": chance.choice(["shop", "SHOP", "other"]),
        "environment": chance.choice(["test", "production"]),
        "name": chance.choice(["eve", "till", "zür stra", "au", "night audit"]),
    }
    wanted = chance.sample(sorted(choices), chance.choice([0, 0, 1, 1, 1, 2, 2, 3]))
    return {
        **{name: choices[name] for name in wanted},
        "sort": chance.choice([*Sort]).value,
        "descending": chance.random() < 0.6,
        "limit": chance.choice([3, 10, 100]),
        "details": chance.random() < 0.3,
    }


async def fill(world: Described) -> None:
    """The log that the requests ask about."""
    chance = random.Random(7)
    for number in range(SESSIONS):
        name = f"s-{number:03}"
        fields = Details(
            name=chance.choice(NAMES),
            owner=chance.choice(PEOPLE),
            tags=tuple(chance.sample(["Red", "green", "blue"], chance.randint(0, 2))),
            project=chance.choice(["Shop", "other", ""]),
            environment=chance.choice(["test", "production", ""]),
        )
        await world.open(name, chance.choice([fields, fields, None]), chance.choice(PEOPLE))
        end = chance.choice(["created", "active", "sealed", "sealed", "error", "changed", "destroyed"])
        if end not in ("created", "changed"):
            await world.start(name)
        if end == "sealed":
            await world.seal(name, chance.randint(1, 4))
        if end == "error":
            await world.order(commands.Error, name, reason="disk")
        if end == "changed":
            await world.change(name, fields.model_copy(update={"owner": "ada", "tags": ("red",)}))
        if end == "destroyed":
            await world.destroy(name)
