"""Sessions that the platform creates itself: repeated requests, details, retention, the paused pipeline."""

from dataclasses import replace

import pytest

from handlers.lifecycle.decide import REVISIONS_MOST, decide
from handlers.lifecycle.next_action import is_expired
from handlers.lifecycle.session import Session, evolve, initial
from handlers.lifecycle.view import session_details
from schemas.errors import RefusedByState, Stale
from schemas.events import commands
from schemas.events.commands import Command
from schemas.events.session import DAY_US, Created, SessionPolicy, stored_bytes
from tests.support.evidence.session_commands import BEGIN, COMPLETE, create, open_upload

KEEP = SessionPolicy(retention_days=30)
HEAD = {"session": "demo-01", "who": "ann"}


def run(session: Session, *orders: Command) -> Session:
    for number, order in enumerate(orders):
        for event in decide(session, order.model_copy(update={"cause": f"{order.cause}-{number}"})):
            session = evolve(session, event, session.last_seq + 1)
    return session


def opened(**more: object) -> Session:
    command = open_upload(**more)
    (event,) = decide(initial("demo-01"), command)
    return evolve(initial("demo-01"), event, 1)


def order(kind: type[Command], at_us: int = 7, **more: object) -> Command:
    return kind.model_validate({**HEAD, "at_us": at_us, "cause": f"c-{kind.__name__}-{at_us}", **more})


def started(session: Session) -> Session:
    complete = order(commands.StartComplete, dek_id="6b" * 16, intake="bb" * 1216)
    return run(session, order(commands.Start), complete)


def change(revision: int, cause: str = "u") -> Command:
    return order(commands.ChangeDetails, revision=revision, dek_id=b"k" * 16, details=b"more", cause=cause)


def test_a_repeated_request_gives_the_same_session_and_another_one_is_refused() -> None:
    """Breaks: a client whose answer was lost gets two sessions, or another content under its key."""
    session = opened()
    assert decide(session, open_upload()) == []
    for changed in ({"details": b"other"}, {"policy": KEEP}, {"secret": b"s"}):
        with pytest.raises(RefusedByState) as refused:
            decide(session, open_upload(**changed))
        assert refused.value.code == "idempotency.reused"
    with pytest.raises(RefusedByState) as taken:
        decide(session, open_upload(cause="another"))
    assert taken.value.code == "session.exists"


def test_a_session_of_a_host_has_the_bytes_of_before() -> None:
    """Breaks: the history of every host's session has other bytes than its last version wrote."""
    (event,) = decide(initial("demo-01"), create())
    new = {"dek_id", "details", "secret", "policy", "capture", "upload"}
    assert isinstance(event, Created)
    assert not any(f'"{name}"'.encode() in stored_bytes(event) for name in new)


def test_details_change_only_from_the_newest_revision_on() -> None:
    """Breaks: of two people who edit at once, one undoes the change of the other and nobody is told."""
    session = run(opened(), change(2))
    assert (session.revision, session.details) == (2, b"more")
    with pytest.raises(Stale) as stale:
        decide(session, change(2, "late"))
    assert stale.value.code == "session.revision"
    assert session_details(session)["revision"] == 2


def test_the_details_of_a_session_do_not_grow_without_end() -> None:
    """Breaks: one client fills a log that never expires."""
    session = replace(opened(), revision=REVISIONS_MOST)
    with pytest.raises(RefusedByState) as refused:
        decide(session, change(REVISIONS_MOST + 1))
    assert refused.value.code == "session.revisions"


def test_a_destroyed_session_takes_no_details() -> None:
    """Breaks: a person's name comes back after the erasure that was promised."""
    session = run(opened(), order(commands.Destroy))
    with pytest.raises(RefusedByState, match="ordered to be destroyed"):
        decide(session, change(2))


def test_no_session_is_destroyed_before_its_retention_ends() -> None:
    """Breaks: evidence that a rule keeps for a month is gone the next day."""
    session = run(started(opened(policy=KEEP)), order(commands.Stop), order(commands.BeginSeal, **BEGIN))
    session = run(session, order(commands.CompleteSeal, at_us=1000, seal_no=1, **COMPLETE))
    end_us = 1000 + 30 * DAY_US
    assert session.retained_until_us == end_us
    with pytest.raises(RefusedByState) as early:
        decide(session, order(commands.Cleanup, at_us=end_us - 1))
    assert early.value.code == "retention.early"
    assert run(session, order(commands.Cleanup, at_us=end_us)).destroy is not None
    held = run(session, order(commands.ChangeHold, held=True))
    with pytest.raises(RefusedByState, match="under legal hold"):
        decide(held, order(commands.Cleanup, at_us=end_us))


def test_an_unsealed_recording_is_never_destroyed_by_itself() -> None:
    """Breaks: a chunk dies, and the whole recording is erased before anybody could recover it."""
    never_us, failed = 10**15, order(commands.Error)
    for created_us in (1, never_us):  # a log of before bears the clock of a host
        session = run(started(opened(policy=KEEP, at_us=created_us)), failed)
        assert (session.state, session.retained_until_us) == ("ERROR", 0)
        assert not is_expired(session, never_us + 40_000 * DAY_US)
    keyless = run(opened(policy=KEEP), order(commands.Start), failed)
    assert is_expired(keyless, keyless.retained_until_us), "nothing was recorded into it"


def test_an_unsealed_recording_is_protected_from_its_start_on() -> None:
    """Breaks: evidence under a rule is deleted while it is made; or a host's clock keeps it for ever."""
    for created_us in (1, 10**15):
        session = run(started(opened(policy=KEEP, at_us=created_us)), order(commands.Error))
        end_us = session.started_us + 30 * DAY_US
        with pytest.raises(RefusedByState) as early:
            decide(session, order(commands.Cleanup, at_us=end_us - 1))
        assert early.value.code == "retention.early"
        assert run(session, order(commands.Cleanup, at_us=end_us)).destroy is not None


def test_a_session_that_never_started_may_go_at_once() -> None:
    """Breaks: a slip of the pen takes a place for a month."""
    assert run(opened(policy=KEEP), order(commands.Destroy)).state == "DESTROYED"


def test_a_pipeline_is_paused_and_resumed_beside_the_recording() -> None:
    """Breaks: pausing the pipeline pauses the recording, or a repeated pause cannot be taken back."""
    session = started(opened())
    session = run(session, order(commands.PausePipeline), order(commands.PausePipeline, at_us=8))
    assert (session.pipeline_paused, session.state) == (True, "ACTIVE")
    session = run(session, order(commands.Pause), order(commands.PauseComplete), order(commands.Resume))
    assert session.pipeline_paused
    session = run(session, order(commands.ResumePipeline), order(commands.ResumePipeline, at_us=8))
    assert not session.pipeline_paused
    assert session_details(session)["pipeline_paused"] is False


def test_a_pipeline_cannot_pause_what_is_being_sealed() -> None:
    """Breaks: a seal that has begun waits for a person, and its bytes are fixed."""
    session = run(started(opened()), order(commands.Stop), order(commands.BeginSeal, **BEGIN))
    with pytest.raises(RefusedByState, match="cannot pause its pipeline: it is STOPPING, being sealed"):
        decide(session, order(commands.PausePipeline))


def test_the_key_of_the_details_is_the_one_that_the_start_names() -> None:
    """Breaks: a destroyed session that never started leaves a tombstone without the key that it had."""
    session = opened()
    assert (session.key_id, session.dek_id) == (b"k" * 16, b"")
    assert started(session).dek_id == session.key_id


def test_the_samples_of_a_policy_are_bounded() -> None:
    """Breaks: a retention of no day, or of a million years, is taken for a rule."""
    for days in (0, 36_501, -1):
        with pytest.raises(ValueError, match="retention_days"):
            SessionPolicy(retention_days=days)
