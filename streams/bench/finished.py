"""Makes finished sessions without recording anything: the events of a real session, and nothing else.

1. The same `decide` as a real session's makes every event of a host's first session, signed by the host. The
   other sessions are copies of its text with other names, times and signatures.
2. There are no chunks, keys or fragments: the measurements never read them.
"""

import time
from collections.abc import Iterable, Iterator

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from handlers.lifecycle.decide import decide
from handlers.lifecycle.session import evolve, initial
from schemas import subjects
from schemas.events import commands
from schemas.events.chunk import Ended, FoldState, TrackEnd
from schemas.events.commands import CREATE_PREFIX, Command, Create, create_request
from schemas.events.host import CounterTaken, HostRegistered
from schemas.events.session import SessionSettings, stored_bytes
from schemas.format.fragment import session_uid
from schemas.format.jcs import jcs

SETTINGS = SessionSettings()
INTAKE, DIGEST, GENESIS = bytes(range(256)) * 4 + bytes(192), bytes(range(32)), bytes(32)
STEP_US = 1_000_000
YEAR_US = 365 * 86_400_000_000

Line = tuple[str, bytes]
"""A subject and a body."""


class FinishedHost:
    """One host and its key, made from its name."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.key = Ed25519PrivateKey.from_private_bytes(name.encode().ljust(32, b"\0")[:32])
        self.public = self.key.public_key().public_bytes_raw()
        self.counter = 0
        self._first: tuple[list[Line], dict[str, str]] | None = None

    def registered(self) -> Line:
        event = HostRegistered(host=self.name, key=self.public, at_us=1, who=self.name)
        return subjects.host_log(self.name), jcs(event.model_dump(mode="json"))

    def create(self, session: str, at_us: int) -> Create:
        """The signed request for this host's next session."""
        self.counter += 1
        asked = create_request(session, self.name, self.public, self.counter, GENESIS, SETTINGS)
        return Create(
            session=session,
            at_us=at_us,
            who=self.name,
            cause=f"create-{session}",
            host=self.name,
            host_key=self.public,
            counter=self.counter,
            prev_genesis=GENESIS,
            settings=SETTINGS,
            request=self.key.sign(CREATE_PREFIX + asked),
        )

    def finished(self, session: str, at_us: int) -> list[Line]:
        """All events of one sealed session."""
        create = self.create(session, at_us)
        words = _words(create)
        if self._first is None:
            self._first = self.lines(create), words
            return self._first[0]
        lines, were = self._first
        return [
            (_reworded(subject, were, words), _reworded(body.decode(), were, words).encode())
            for subject, body in lines
        ]

    def lines(self, create: Create) -> list[Line]:
        """All events of the session of this request, each made anew."""
        session, at_us = create.session, create.at_us
        taken = CounterTaken(counter=self.counter, session=session)
        uid = session_uid(self.public, self.counter)
        return [
            (subjects.counter(self.public, self.counter), jcs(taken.model_dump(mode="json"))),
            *((subjects.lifecycle(session), line) for line in _history(create)),
            (subjects.chunk(subjects.RECORDED, session), _ended(session, uid, at_us)),
        ]


def finished_sessions(count: int, hosts: int, first: int = 0) -> Iterator[list[Line]]:
    """The events of `count` sessions of so many hosts, a list a session; all a year old."""
    known = [FinishedHost(f"host-{number:04}") for number in range(hosts)]
    began_us = time.time_ns() // 1000 - YEAR_US
    yield [host.registered() for host in known]
    for number in range(first, first + count):
        yield known[number % hosts].finished(f"finished-{number:07}", began_us + number * STEP_US)


def _words(create: Create) -> dict[str, str]:
    """The texts that differ from session to session."""
    times = {f"time {step}": f":{create.at_us + step * STEP_US // 10}" for step in range(11)}
    return {
        "session": create.session,
        "partition": f".{subjects.partition(create.session)}.",
        "counter": f'"counter":{create.counter},',
        "counter subject": f"{create.host_key.hex()}.{create.counter}",
        "uid": session_uid(create.host_key, create.counter).hex(),
        "request": create.request.hex(),
        **times,
    }


def _reworded(text: str, were: dict[str, str], words: dict[str, str]) -> str:
    for what, word in words.items():
        text = text.replace(were[what], word)
    return text


def _history(create: Create) -> Iterator[bytes]:
    session = initial(create.session)
    for number, command in enumerate((create, *_life(create))):
        (event,) = decide(session, command)
        session = evolve(session, event, number + 1)
        yield stored_bytes(event)


def _life(create: Create) -> Iterable[Command]:
    def head(number: int) -> dict[str, object]:
        at_us = create.at_us + number * STEP_US // 10
        return {"session": create.session, "at_us": at_us, "who": "conductor", "cause": f"cause-{number}"}

    yield commands.Start.model_validate(head(1))
    yield commands.StartComplete.model_validate({**head(2), "dek_id": DIGEST[:16], "intake": INTAKE})
    yield commands.Stop.model_validate({**head(3), "reason": "ended"})
    begun = {"sealed_us": create.at_us + STEP_US, "signer": DIGEST, "n": 2, "stored": 9}
    yield commands.BeginSeal.model_validate({**head(4), **begun})
    sums = {"chunks": 3, "plain": 20 << 20, "sealed": 18 << 20}
    yield commands.CompleteSeal.model_validate(
        {**head(5), "seal_no": 1, "manifest": DIGEST, "root": DIGEST, **sums}
    )
    yield commands.StopComplete.model_validate({**head(6), "reason": "sealed"})


def _ended(session: str, uid: bytes, at_us: int) -> bytes:
    event = Ended(
        session=session,
        uid=uid,
        chunks=2,
        fragments=40,
        plain=20 << 20,
        tracks=(TrackEnd(id=0, last_seq=39, head=DIGEST, plain=20 << 20),),
        genesis={0: DIGEST},
        end="final",
        reason="none",
        ended_us=at_us + STEP_US,
        ending=bytes(400),
        state=FoldState(at=1, next_index=2, fragments=40, plain=20 << 20, tracks=()),
    )
    return event.model_dump_json().encode()
