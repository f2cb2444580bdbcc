"""Documents and queries of read models, the same in every run: what both stores are asked."""

import random
from collections.abc import Iterator
from dataclasses import replace

from handlers.crypto.blind_index import BlindIndex
from handlers.views.cursor import place_of
from schemas.events.details import Details
from schemas.ports.read_models import SessionDocument, SessionFilter, SessionQuery, Sort

INDEX = BlindIndex(bytes(range(32)))
STATES = ("CREATED", "ACTIVE", "PAUSED", "STOPPED", "ERROR", "DESTROYED")
OWNERS = ("ada@example", "grace", "Linus")
WORDS = ("till", "evening", "audit", "Zürich", "straße", "night shift", "a b", "x")
DAY_US = 86_400_000_000


def details(chance: random.Random) -> Details:
    return Details(
        name=" ".join(chance.sample(WORDS, chance.randint(0, 3))),
        owner=chance.choice(OWNERS),
        project=chance.choice(("", "audit", "shop")),
        environment=chance.choice(("", "production", "test")),
        tags=tuple(chance.sample(("red", "green", "Blue"), chance.randint(0, 3))),
    )


def documents(count: int, seed: int = 1, first: int = 1) -> list[SessionDocument]:
    """`count` sessions from number `first` on; several have equal values, so that orders need the number."""
    chance = random.Random(seed)
    made = []
    for number in range(first, first + count):
        state = chance.choice(STATES)
        gone, sealed = state == "DESTROYED", state == "STOPPED"
        started_us = 0 if state == "CREATED" else chance.randint(1, 40) * DAY_US
        made.append(
            SessionDocument(
                number=number,
                seq=number * 7,
                session=f"s-{chance.choice(('desk', 'till', 'lab'))}-{number:05}",
                state=state,
                host=f"host-{chance.randint(0, 9)}",
                opened_by=chance.choice(("", "ada", "grace")),
                reason=chance.choice(("none", "operator")),
                created_us=number // 3 * DAY_US,
                started_us=started_us,
                moved_us=started_us + chance.randint(0, 3) * DAY_US,
                duration_us=chance.randint(0, 5) * 1_000_000,
                sealed=sealed,
                held=chance.random() < 0.1,
                chunks=chance.randint(1, 9) if sealed else 0,
                plain_bytes=chance.choice((0, 5, 2**40, 2**45)) if sealed else 0,
                sealed_bytes=chance.randint(1, 2**33) if sealed else 0,
                revision=1,
                details=b"" if gone else chance.randbytes(298),
                tokens=() if gone else INDEX.tokens(details(chance)),
                shown={"uid": f"{number:032x}", "seal": {"chunks": 1, "plain": 2**45}, "held": False},
            )
        )
    return made


def filters(chance: random.Random) -> SessionFilter:
    wanted = SessionFilter()
    if chance.random() < 0.4:
        wanted = replace(wanted, states=tuple(chance.sample(STATES, chance.randint(1, 3))))
    if chance.random() < 0.2:
        wanted = replace(wanted, host=f"host-{chance.randint(0, 11)}")
    if chance.random() < 0.2:
        wanted = replace(wanted, opened_by=chance.choice(("ada", "grace", "nobody")))
    if chance.random() < 0.2:
        wanted = replace(wanted, text=chance.choice(("desk", "-000", "s-", "' OR 1=1 --", ".", "TILL", "")))
    if chance.random() < 0.3:
        from_us = chance.randint(0, 80) * DAY_US
        before_us = chance.choice((None, from_us + chance.randint(0, 30) * DAY_US))
        wanted = replace(wanted, from_us=chance.choice((None, from_us)), before_us=before_us)
    if chance.random() < 0.2:
        wanted = replace(wanted, sealed=chance.random() < 0.5)
    if chance.random() < 0.4:
        asked = {
            INDEX.owned_by(chance.choice((*OWNERS, "linus"))),
            *(
                INDEX.named(chance.choice(("eve", "zür", "STRASSE", "ni", "x")))
                if chance.random() < 0.5
                else ()
            ),
            *((INDEX.tagged("blue"),) if chance.random() < 0.3 else ()),
        }
        wanted = replace(wanted, tokens=tuple(sorted(asked)))
    return wanted


def queries(count: int, among: list[SessionDocument], seed: int = 2) -> Iterator[SessionQuery]:
    """Pages in every order, from the beginning and from places that are and are not in the list."""
    chance = random.Random(seed)
    for number in range(count):
        sort = tuple(Sort)[number % len(Sort)]
        place = place_of(chance.choice(among), sort)
        places = (None, place, place._replace(number=place.number + chance.randint(-5, 5)))
        yield SessionQuery(
            filter=filters(chance),
            sort=sort,
            descending=chance.random() < 0.6,
            after=chance.choice(places),
            limit=chance.choice((1, 7, 100, 501)),
        )
