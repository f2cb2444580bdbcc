"""Four eyes, pure: whatever persons ask and answer in any order, nobody looks on the own word alone."""

from dataclasses import dataclass

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from handlers.access.grants import Access, Stage, check_grant, decide, evolve, initial
from schemas.errors import Denied, LucidError, Misuse, NotFound, RefusedByState
from schemas.events.access import (
    EVENT,
    AccessCommand,
    AnswerAccess,
    RequestAccess,
    access_key,
    parse_request_id,
    read_access_event,
    request_id,
)
from schemas.format.jcs import jcs

HOUR_US, LIFE_US, WAIT_US = 3600 * 10**6, 8 * 3600 * 10**6, 24 * 3600 * 10**6
PEOPLE = ("alice", "Alice ", "ALICE", "bob", "carol")
KEY = access_key("alice", "watch")


def ask(at_us: int, cause: str = "r") -> RequestAccess:
    return RequestAccess(
        who="alice", at_us=at_us, cause=cause, session="demo-01", look="watch", reason="ticket 7",
        ends_us=at_us + WAIT_US,
    )  # fmt: skip


def answer(who: str, number: int, approve: bool, at_us: int, cause: str = "a") -> AnswerAccess:
    return AnswerAccess(
        who=who, at_us=at_us, cause=cause, number=number, approve=approve, until_us=at_us + LIFE_US
    )


def after(*commands: AccessCommand) -> Access:
    access = initial("demo-01", KEY)
    for command in commands:
        for event in decide(access, command):
            stored = read_access_event(jcs(event.model_dump(mode="json")))
            assert stored == event
            access = evolve(access, stored, access.last_seq + 1)
    return access


def test_a_look_is_allowed_from_the_approval_to_its_end() -> None:
    """Breaks: a granted look is refused, or an ended grant goes on."""
    asked = after(ask(0))
    granted = after(ask(0), answer("bob", 1, True, HOUR_US))
    for access, at_us, code in (
        (initial("demo-01", KEY), 0, "access.needed"),
        (asked, 0, "access.unanswered"),
        (asked, WAIT_US, "access.ended"),
        (granted, HOUR_US + LIFE_US, "access.ended"),
        (after(ask(0), answer("bob", 1, False, 1)), 2, "access.ended"),
    ):
        with pytest.raises(Denied) as refused:
            check_grant(access, at_us)
        assert refused.value.code == code
    check_grant(granted, HOUR_US)
    check_grant(granted, HOUR_US + LIFE_US - 1)


@pytest.mark.parametrize("who", ["alice", "ALICE", " alice "])
def test_the_requester_never_approves(who: str) -> None:
    """Breaks: two tokens of one person are two persons."""
    with pytest.raises(Denied, match="your own") as refused:
        after(ask(0), answer(who, 1, True, 1))
    assert refused.value.code == "access.self"


def test_a_requester_may_take_the_own_request_back() -> None:
    """Breaks: a request that was a mistake waits for days."""
    assert after(ask(0), answer("alice", 1, False, 1)).stage(1) == Stage.REFUSED


def test_an_approver_approves_the_request_that_was_read_and_no_later_one() -> None:
    """Breaks: a harmless request is refused, asked again with another reason, and approved unread."""
    with pytest.raises(RefusedByState):
        after(ask(0), answer("bob", 1, False, 1), ask(2, "r2"), answer("carol", 1, True, 3, "a2"))
    with pytest.raises(NotFound):
        after(ask(0), answer("bob", 2, True, 1))
    with pytest.raises(NotFound):
        after(answer("bob", 0, True, 1))


def test_a_grant_can_be_ended_early() -> None:
    """Breaks: a look that was allowed by mistake goes on to its end."""
    access = after(ask(0), answer("bob", 1, True, 1), answer("carol", 1, False, 2, "stop"))
    assert access.stage(3) == Stage.REFUSED
    assert access.answered_by == "carol"


def test_a_repeated_command_counts_once() -> None:
    """Breaks: a client that repeats a request after a lost answer makes two."""
    access = after(ask(0), ask(5), answer("bob", 1, True, 6), answer("bob", 1, True, 7))
    assert (access.number, access.until_us) == (1, 6 + LIFE_US)


def test_an_event_of_a_newer_version_changes_nothing() -> None:
    """Breaks: an older service cannot answer for a log that a newer one writes."""
    newer = jcs({"type": "AccessWatched", "number": 1, "at_us": 1, "who": "x", "cause": "y", "version": 2})
    before = after(ask(0))
    assert evolve(before, read_access_event(newer), 9).stage(0) == before.stage(0)


@pytest.mark.parametrize(
    "text", ["", "demo-01", "demo-01.xyz.1", f"demo-01.{KEY}.0", f"a b.{KEY}.1", f"a.{KEY}.01"]
)
def test_a_misspelt_id_is_refused(text: str) -> None:
    """Breaks: a slip of the pen approves another request."""
    with pytest.raises(Misuse):
        parse_request_id(text)
    assert parse_request_id(request_id("demo-01", KEY, 12)) == ("demo-01", KEY, 12)


@dataclass
class Truth:
    """What must hold, kept beside the log in the simplest way."""

    asked_at: int
    granted: tuple[int, int] | None = None
    open: bool = True


class FourEyes(RuleBasedStateMachine):
    """Commands in any order, at times that never go back."""

    def __init__(self) -> None:
        super().__init__()
        self.access, self.now_us, self.causes = initial("demo-01", KEY), 0, 0
        self.truth: dict[int, Truth] = {}

    def run(self, command: AccessCommand) -> bool:
        try:
            events = decide(self.access, command)
        except (LucidError, ValueError):
            return False
        for event in events:
            self.access = evolve(
                self.access, EVENT.validate_python(event.model_dump()), self.access.last_seq + 1
            )
        return True

    def cause(self) -> str:
        self.causes += 1
        return f"c{self.causes}"

    @rule(hours=st.integers(0, 30))
    def time_passes(self, hours: int) -> None:
        self.now_us += hours * HOUR_US

    @rule()
    def request(self) -> None:
        newest = self.truth.get(self.access.number)
        busy = newest is not None and (
            (newest.open and self.now_us < newest.asked_at + WAIT_US)
            or (newest.granted is not None and self.now_us < newest.granted[1])
        )
        assert self.run(ask(self.now_us, self.cause())) is not busy
        if not busy:
            self.truth[self.access.number] = Truth(self.now_us)

    @rule(who=st.sampled_from(PEOPLE), number=st.integers(0, 4), approve=st.booleans())
    def answer(self, who: str, number: int, approve: bool) -> None:
        newest = self.truth.get(number) if number == self.access.number else None
        waits = newest is not None and newest.open and self.now_us < newest.asked_at + WAIT_US
        goes_on = newest is not None and newest.granted is not None and self.now_us < newest.granted[1]
        own = who.strip().casefold() == "alice"
        allowed = waits and not own if approve else waits or (goes_on and not own)
        assert self.run(answer(who, number, approve, self.now_us, self.cause())) is allowed
        if newest is not None and allowed:
            newest.open = False
            newest.granted = (self.now_us, self.now_us + LIFE_US) if approve else None

    @invariant()
    def a_look_is_allowed_exactly_within_a_grant_of_somebody_else(self) -> None:
        newest = self.truth.get(self.access.number)
        wanted = (
            newest is not None
            and newest.granted is not None
            and (newest.granted[0] <= self.now_us < newest.granted[1])
        )
        try:
            check_grant(self.access, self.now_us)
        except Denied:
            assert not wanted
        else:
            assert wanted
            assert self.access.answered_by.strip().casefold() != "alice"


FourEyes.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestFourEyes = FourEyes.TestCase
