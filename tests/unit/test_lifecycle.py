"""The state machine, against its rules written out again by hand."""

from dataclasses import replace
from itertools import product

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from handlers.lifecycle.decide import decide
from handlers.lifecycle.rules import EVENT_RULES, STATES, TABLE, allowed
from handlers.lifecycle.session import Session, evolve, initial
from handlers.lifecycle.view import VERBS, next_commands, session_details
from schemas.errors import Denied, NotFound, RefusedByState
from schemas.events import commands
from schemas.events.commands import Command, Create, Move, Open
from schemas.events.session import (
    EVENT,
    Created,
    DestroyOrdered,
    EndRequested,
    Recovered,
    Sealed,
    SealStarted,
    Shredded,
    StartCompleted,
)
from streams.event_store.session_log import read_event
from tests.support.evidence.session_commands import BEGIN, COMPLETE, HOST_KEY, create

CREATED, STARTING, ACTIVE, PAUSING, PAUSED = "CREATED", "STARTING", "ACTIVE", "PAUSING", "PAUSED"
STOPPING, STOPPED, ERROR, CLEANUP, DESTROYED = "STOPPING", "STOPPED", "ERROR", "CLEANUP", "DESTROYED"
ALL = [CREATED, STARTING, ACTIVE, PAUSING, PAUSED, STOPPING, STOPPED, ERROR, CLEANUP, DESTROYED]

WANTED = {
    (CREATED, "START"): STARTING,
    (STARTING, "START_COMPLETE"): ACTIVE,
    (ACTIVE, "PAUSE"): PAUSING,
    (PAUSING, "PAUSE_COMPLETE"): PAUSED,
    (PAUSED, "RESUME"): ACTIVE,
    (ACTIVE, "STOP"): STOPPING,
    (PAUSED, "STOP"): STOPPING,
    (STOPPING, "STOP_COMPLETE"): STOPPED,
    (ERROR, "RECOVER"): ACTIVE,
    (CLEANUP, "CLEANUP_COMPLETE"): DESTROYED,
    (CREATED, "DESTROY"): DESTROYED,
    **{(state, "ERROR"): ERROR for state in ALL if state != DESTROYED},
    **{(state, "CLEANUP"): CLEANUP for state in ALL if state != DESTROYED},
}
QUIET = {(ERROR, "ERROR"), (CLEANUP, "CLEANUP")}

MOVES: dict[str, type[Move]] = {kind.trigger: kind for kind in Move.__subclasses__()}
EXTRA: dict[str, dict[str, object]] = {
    "START_COMPLETE": {"dek_id": "aa" * 16, "intake": "bb" * 1216},
    "RECOVER": {"chunks": 4},
}


def command(trigger: str, cause: str = "c", **more: object) -> Move:
    said = {
        "session": "demo-01",
        "at_us": 5,
        "who": "tester",
        "cause": cause,
        **EXTRA.get(trigger, {}),
        **more,
    }
    return MOVES[trigger].model_validate(said)


def session_in(state: str) -> Session:
    """A session as it is in this state when it got there the usual way."""
    (created,) = decide(initial("demo-01"), create())
    session = replace(evolve(initial("demo-01"), created, 1), state=state)
    if state not in (CREATED, STARTING):
        session = replace(session, dek_id=b"k" * 16)
    return session


def run(session: Session, *orders: Command) -> Session:
    for order in orders:
        for event in decide(session, order):
            again = EVENT.validate_json(EVENT.dump_json(event))
            assert again == event
            session = evolve(session, again, session.last_seq + 1)
    return session


def test_every_trigger_has_a_command_and_every_state_stands_in_the_table() -> None:
    """Breaks: a state or trigger that no rule speaks of."""
    assert list(STATES) == ALL
    assert {row.trigger for row in TABLE} == set(MOVES)
    facts = {kind for kind in vars(commands).values() if isinstance(kind, type) and issubclass(kind, Command)}
    assert facts - set(MOVES.values()) - {Command, Create, Open, Move} == set(EVENT_RULES)


@pytest.mark.parametrize(("state", "trigger"), list(product(ALL, MOVES)))
def test_every_pair_of_state_and_trigger_does_what_the_table_says(state: str, trigger: str) -> None:
    """Breaks: a session moves where nobody may move it, or refuses what it must do."""
    session = session_in(state)
    wanted = WANTED.get((state, trigger))
    if wanted is None:
        with pytest.raises(RefusedByState) as refused:
            decide(session, command(trigger))
        assert isinstance(refused.value, ValueError)
        assert refused.value.code == "state.refused"
        text = str(refused.value)
        assert f"cannot {trigger}: it is {state}" in text
        assert all(name in text for name in allowed(session))
        return
    assert trigger in allowed(session)
    events = decide(session, command(trigger))
    assert len(events) == (0 if (state, trigger) in QUIET else 1)
    after = run(session, command(trigger))
    assert after.state == wanted
    if events:
        body = events[0].model_dump()
        assert (body["trigger"], body["from_state"], body["to_state"]) == (trigger, state, wanted)


@given(st.lists(st.sampled_from(sorted(MOVES)), max_size=30))
def test_no_sequence_of_commands_leaves_the_table(triggers: list[str]) -> None:
    """Breaks: a state that can be reached only through a bug."""
    session = run(initial("demo-01"), create())
    for number, trigger in enumerate(triggers):
        before, was_allowed = session, trigger in allowed(session)
        try:
            session = run(session, command(trigger, cause=f"c{number}"))
        except RefusedByState:
            assert not was_allowed
            assert session is before
        else:
            assert was_allowed
            late_key = (before.state, trigger) == (ACTIVE, "START_COMPLETE") and not before.dek_id
            assert session.state == (ACTIVE if late_key else WANTED[before.state, trigger])
            assert session.last_seq - before.last_seq <= 1


def test_a_command_that_was_done_is_done_once() -> None:
    """Breaks: a retry after a lost reply fails, or pauses what was resumed since."""
    session = run(session_in(ACTIVE), command("PAUSE", "p"), command("PAUSE_COMPLETE", "pc"))
    session = run(session, command("RESUME", "r"))
    assert decide(session, command("PAUSE", "p")) == []


def test_a_sealed_session_never_becomes_active_again() -> None:
    """Breaks: fragments are added behind the back of a signed manifest."""
    session = seal(session_in(STOPPING))
    session = run(session, command("ERROR"))
    with pytest.raises(
        RefusedByState, match=r"cannot RECOVER: it is ERROR, sealed \(allowed: ERROR, CLEANUP\)"
    ):
        decide(session, command("RECOVER", "r"))


def test_a_session_whose_destruction_was_ordered_never_recovers() -> None:
    """Breaks: a recovered session without keys, whose evidence is half gone."""
    session = run(session_in(ACTIVE), command("CLEANUP", "x"), command("ERROR", "e"))
    with pytest.raises(RefusedByState, match="ordered to be destroyed"):
        decide(session, command("RECOVER", "r"))


def test_each_recovery_has_a_run_of_its_own() -> None:
    """Breaks: a message id is used twice and the broker swallows the redriven chunk."""
    session = session_in(ERROR)
    (first,) = decide(session, command("RECOVER", "r1"))
    assert isinstance(first, Recovered)
    assert first.run == 1
    session = evolve(session, first, 2)
    session = run(
        session, order(commands.AllotRun, "replay", chunks=5), command("ERROR", "e"), command("RECOVER", "r2")
    )
    assert session.run == 3


def test_a_session_that_failed_before_it_had_a_key_gets_one_after_recovery() -> None:
    """Breaks: it is ACTIVE for ever and nothing can be sealed to it."""
    session = run(initial("demo-01"), create(), command("ERROR", "e"), command("RECOVER", "r"))
    assert (session.state, session.dek_id) == (ACTIVE, b"")
    session = run(session, command("START_COMPLETE", "k"))
    assert (session.state, session.dek_id) == (ACTIVE, b"\xaa" * 16)
    with pytest.raises(RefusedByState, match="keyed"):
        decide(session, command("START_COMPLETE", "again"))


def test_a_legal_hold_blocks_destruction_until_it_is_lifted() -> None:
    """Breaks: evidence under a court's order is shredded."""
    session = run(session_in(STOPPED), order(commands.ChangeHold, "h", held=True))
    with pytest.raises(RefusedByState, match="under legal hold") as refused:
        decide(session, command("CLEANUP"))
    assert refused.value.hint == "when its legal hold ends: lucid sessions release demo-01"
    session = run(
        session, order(commands.ChangeHold, "l", held=False), command("CLEANUP", "x", approver="boss")
    )
    assert isinstance(session.destroy, DestroyOrdered)
    assert session.destroy.approver == "boss"
    with pytest.raises(RefusedByState):
        decide(session, order(commands.ChangeHold, "h2", held=True))


def test_creating_again_with_the_same_request_changes_nothing() -> None:
    """Breaks: a host whose reply was lost cannot go on."""
    session = run(initial("demo-01"), create())
    assert decide(session, create().model_copy(update={"cause": "other", "at_us": 9})) == []


def test_a_name_is_never_used_twice() -> None:
    """Breaks: two recordings under one name."""
    session = run(initial("demo-01"), create())
    with pytest.raises(RefusedByState) as refused:
        decide(session, create(counter=2))
    assert refused.value.code == "session.exists"


def test_a_request_signed_by_another_key_is_denied() -> None:
    """Breaks: anyone opens sessions in a host's name."""
    with pytest.raises(Denied) as denied:
        decide(initial("demo-01"), create(key=Ed25519PrivateKey.from_private_bytes(b"x" * 32)))
    assert denied.value.code == "host.signature"


@pytest.mark.parametrize(
    "change", [{"host": "host-2"}, {"counter": 2}, {"prev_genesis": b"p" * 32}, {"session": "demo-02"}]
)
def test_the_signature_covers_what_the_evidence_rests_on(change: dict[str, object]) -> None:
    """Breaks: the platform alters a request and the host seems to have asked for it."""
    with pytest.raises(Denied):
        decide(initial("demo-01"), create().model_copy(update=change))


def test_a_command_to_no_session_is_not_found() -> None:
    """Breaks: a misspelt name seems to be refused by a state."""
    with pytest.raises(NotFound) as error:
        decide(initial("demo-01"), command("STOP"))
    assert error.value.code == "session.absent"


def order(kind: type[Command], cause: str = "f", **more: object) -> Command:
    return kind.model_validate({"session": "demo-01", "at_us": 7, "who": "tester", "cause": cause, **more})


def seal(session: Session) -> Session:
    session = run(session, order(commands.BeginSeal, "b", **BEGIN))
    assert isinstance(session.seal_started, SealStarted)
    return run(session, order(commands.CompleteSeal, "s", seal_no=1, **COMPLETE))


def test_a_seal_is_begun_then_completed_once() -> None:
    """Breaks: two manifests under one number."""
    session = seal(session_in(STOPPING))
    assert session.seal_started is None
    assert [type(one) for one in session.seals] == [Sealed]
    assert decide(session, order(commands.CompleteSeal, "again", seal_no=1, **COMPLETE)) == []
    with pytest.raises(RefusedByState, match="not being sealed"):
        decide(session, order(commands.CompleteSeal, "other", seal_no=2, **COMPLETE))


def test_no_loss_is_accepted_once_a_seal_has_begun() -> None:
    """Breaks: the manifest is built from other events after a crash than before."""
    session = run(session_in(STOPPING), order(commands.BeginSeal, "b", **BEGIN))
    with pytest.raises(RefusedByState, match="being sealed"):
        decide(session, order(commands.AcceptLoss, "l", index=1))


def test_a_seal_that_an_error_interrupted_is_the_same_one_after_recovery() -> None:
    """Breaks: SealStarted twice, with two times, for one manifest."""
    session = run(session_in(STOPPING), order(commands.BeginSeal, "b", **BEGIN), command("ERROR", "e"))
    with pytest.raises(RefusedByState):
        decide(session, order(commands.CompleteSeal, "s", seal_no=1, **COMPLETE))
    session = run(session, command("RECOVER", "r"), command("STOP", "st"))
    with pytest.raises(RefusedByState, match="being sealed"):
        decide(session, order(commands.BeginSeal, "b2", **BEGIN))
    assert run(session, order(commands.CompleteSeal, "s", seal_no=1, **COMPLETE)).sealed


def test_the_first_request_to_end_stands() -> None:
    """Breaks: a recording that the host aborted is reported as lost."""
    session = run(session_in(ACTIVE), order(commands.RequestEnd, "1", end="aborted", reason="operator"))
    session = run(session, order(commands.RequestEnd, "2", end="host_lost", reason="timer"))
    assert isinstance(session.end_requested, EndRequested)
    assert session.end_requested.reason == "operator"


TYPED: dict[str, Command] = {
    "lucid sessions pause {}": command("PAUSE"),
    "lucid sessions resume {}": command("RESUME"),
    "lucid sessions stop {}": command("STOP"),
    "lucid recover {}": command("RECOVER"),
    "lucid sessions stop {} --abort": order(commands.RequestEnd, end="aborted"),
    "lucid sessions destroy {}": command("CLEANUP"),
}
EVIDENCE = {"lucid verify {}", "lucid replay {}", "lucid export {} --out FILE"}


@pytest.mark.parametrize("is_sealed", [False, True])
@pytest.mark.parametrize("state", ALL)
def test_what_a_person_is_told_to_type_is_done_and_the_rest_is_not(state: str, is_sealed: bool) -> None:
    """Breaks: `show` offers a command that is refused, or keeps the one from people that would help."""
    session = replace(seal(session_in(STOPPING)), state=state) if is_sealed else session_in(state)
    assert {verb for verb, _ in VERBS} == {*TYPED, *EVIDENCE}
    told = next_commands(session)
    assert all((verb.format("demo-01") in told) == is_sealed for verb in EVIDENCE)
    for verb, typed in TYPED.items():
        try:
            done = decide(session, typed) != []
        except RefusedByState:
            done = False
        assert (verb.format("demo-01") in told) == done, (verb, told)


@pytest.mark.parametrize(("state", "typed"), list(product(ALL, TYPED)))
def test_who_is_refused_is_told_a_command_that_destroys_nothing(state: str, typed: str) -> None:
    """Breaks: a slip is answered with names of the code, with nothing, or with how to lose the evidence."""
    session = session_in(state)
    if typed.format("demo-01") in next_commands(session) or (state, typed) == (
        CLEANUP,
        "lucid sessions destroy {}",
    ):
        return
    with pytest.raises(RefusedByState) as refused:
        decide(session, TYPED[typed])
    hint = refused.value.hint
    assert "RequestEnd" not in refused.value.message
    assert "destroy" not in hint
    others = [one for one in next_commands(session) if "destroy" not in one]
    assert (others[0] if others else "lucid sessions show demo-01") in hint
    assert ("--abort" in hint) == ("if its host is gone: lucid sessions stop demo-01 --abort" in hint)


def test_a_seal_is_told_to_who_would_change_what_was_sealed() -> None:
    """Breaks: who wants a stopped session back is sent to start another, and not to its evidence."""
    with pytest.raises(RefusedByState) as refused:
        decide(replace(seal(session_in(STOPPING)), state=STOPPED), command("RECOVER"))
    assert "it is STOPPED, sealed" in refused.value.message
    assert refused.value.hint == "lucid verify demo-01, or lucid replay demo-01"


def test_shredding_is_recorded_in_either_order_with_destroyed() -> None:
    """Breaks: a session that never started can be destroyed but not shredded."""
    never = run(
        session_in(CREATED),
        command("DESTROY", "d"),
        order(commands.RecordShredding, "t", tombstone="ff" * 32),
    )
    assert isinstance(never.shredded, Shredded)
    assert never.state == DESTROYED
    started = run(
        session_in(STOPPED),
        command("CLEANUP", "d"),
        order(commands.RecordShredding, "t", tombstone="ff" * 32),
    )
    assert run(started, command("CLEANUP_COMPLETE", "cc")).state == DESTROYED


LABELLED = (
    b'{"at_us":1,"cause":"create-1","counter":1,"host":"host-1","host_key":"%s","labels":{"owner":"Ann"},'
    b'"prev_genesis":"%s","request":"%s","session":"demo-01","settings":{"chunk_bytes":10485760,'
    b'"chunk_max_seconds":60,"codec":1,"level":3,"suite":1,"threshold":1024},"type":"Created",'
    b'"uid":"%s","version":1,"who":"host-1"}'
) % (HOST_KEY.hex().encode(), b"00" * 32, b"11" * 64, b"22" * 16)
"""As it was written while a session had labels."""


def test_an_event_with_what_is_no_longer_kept_is_read_and_says_no_more_of_it() -> None:
    """Breaks: a session of an older version is lost, or what was said of a person is told on."""
    session = evolve(initial("demo-01"), read_event(LABELLED), 1)
    assert session.state == CREATED
    assert session.created is not None
    assert session.created.uid == b"\x22" * 16
    assert "Ann" not in str(session_details(session)) + session.created.model_dump_json()


def test_an_event_seen_twice_and_one_of_a_newer_version_change_nothing_else() -> None:
    """Breaks: a follower that reconnects counts twice; an older conductor dies of a newer event."""
    session = run(initial("demo-01"), create(), command("START", "s"))
    (event,) = decide(session, command("START_COMPLETE", "k"))
    assert isinstance(event, StartCompleted)
    assert isinstance(decide(initial("x"), create("x"))[0], Created)
    once = evolve(session, event, 7)
    assert evolve(once, event, 7) is once
    unknown = evolve(once, None, 8)
    assert replace(unknown, last_seq=7, events=3) == once
