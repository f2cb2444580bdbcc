"""What a session needs next, in small worlds where actions are carried out at once."""

from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handlers.lifecycle.decide import decide
from handlers.lifecycle.next_action import (
    HOST_SILENT,
    MAX_SIZE,
    Action,
    Execute,
    Facts,
    MakeKey,
    MakeSeal,
    Redrive,
    SendEnd,
    SendFinal,
    Shred,
    SilenceLimits,
    StartSeal,
    evaluate,
)
from handlers.lifecycle.session import Session, evolve, initial
from schemas.events import commands
from schemas.events.commands import Command
from tests.support.evidence.session_commands import BEGIN, COMPLETE, create, open_upload

LIMITS = SilenceLimits()
NAME = "demo-01"


@dataclass
class World:
    """One session with its events, and a conductor that is asked until it has nothing to do."""

    session: Session = field(default_factory=lambda: initial(NAME))
    recorded: dict[int, int] = field(default_factory=dict)
    stored: dict[int, int] = field(default_factory=dict)
    driven: dict[int, int] = field(default_factory=dict)
    dead: dict[tuple[int, int], str] = field(default_factory=dict)
    ended: int | None = None
    heard_us: int = 0
    looked_us: int | None = None
    """None: all is looked at as soon as it comes."""
    now_us: int = 10
    done: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        for event in decide(self.session, create()):
            self.session = evolve(self.session, event, 1)

    def do(self, kind: type[Command], **said: Any) -> None:
        head = {"session": NAME, "at_us": self.now_us, "who": "t", "cause": f"c{self.session.last_seq}"}
        for event in decide(self.session, kind.model_validate({**head, **said})):
            self.session = evolve(self.session, event, self.session.last_seq + 1)

    @property
    def facts(self) -> Facts:
        return Facts(
            self.session, self.now_us, self.recorded, self.stored, self.driven, self.dead,
            ended_chunks=self.ended, heard_us=self.heard_us,
            looked_us=self.now_us if self.looked_us is None else self.looked_us,
        )  # fmt: skip

    def next(self) -> Action | None:
        return evaluate(self.facts, LIMITS)

    def settle(self) -> "World":
        for _ in range(50):
            action = self.next()
            if action is None:
                return self
            kind = action.command if isinstance(action, Execute) else type(action)
            self.done.append(kind.__name__)
            self.carry_out(action)
        raise AssertionError(f"it never comes to rest: {self.done[-10:]}")

    def carry_out(self, action: Action) -> None:
        match action:
            case MakeKey():
                self.do(commands.StartComplete, dek_id="aa" * 16, intake="bb" * 1216)
            case Execute(command, said):
                self.do(command, **said)
            case SendEnd() | SendFinal():
                self.ended = len(self.recorded)
            case Redrive(indices):
                self.driven.update(dict.fromkeys(indices, self.session.run))
            case StartSeal(n, stored):
                self.do(commands.BeginSeal, **{**BEGIN, "n": n, "stored": stored})
            case MakeSeal():
                self.do(commands.CompleteSeal, **COMPLETE, seal_no=1)
            case Shred():
                self.do(commands.RecordShredding, tombstone="ff" * 32)

    def start(self) -> "World":
        self.do(commands.Start)
        return self.settle()


def started(chunks: int = 3) -> World:
    world = World().start()
    world.recorded = {n: n + 1 for n in range(chunks)}
    return world


def test_an_ended_recording_whose_chunks_are_stored_is_sealed_and_stopped() -> None:
    """Breaks: evidence is never signed unless somebody asks."""
    world = started()
    world.stored, world.ended = {0: 7, 1: 9, 2: 8}, 3
    assert world.settle().session.state == "STOPPED"
    assert world.done == ["MakeKey", "Stop", "StartSeal", "MakeSeal", "StopComplete"]
    assert world.session.sealed
    assert world.next() is None


def test_a_seal_reads_stored_up_to_the_newest_event() -> None:
    """Breaks: a seal that a crash interrupted is made again from fewer events."""
    world = started()
    world.stored, world.ended = {0: 7, 1: 9, 2: 8}, 3
    world.do(commands.Stop)
    assert world.next() == StartSeal(3, 9)


def test_nothing_is_sealed_before_everything_is_stored() -> None:
    """Breaks: the last chunk is missing from the manifest."""
    world = started()
    world.stored, world.ended = {0: 1, 1: 2}, 3
    assert world.settle().session.state == "STOPPING"
    world.recorded.pop(2)
    assert world.next() is None, "`ended` may be read before the last `recorded`"


@pytest.mark.parametrize("sealed", [False, True])
def test_an_error_that_comes_behind_an_order_to_destroy_does_not_stop_it(sealed: bool) -> None:
    """Breaks: a host falls silent as its session is destroyed: the key stays, and nobody looks again."""
    world = started()
    if sealed:
        world.stored, world.ended = {0: 7, 1: 9, 2: 8}, 3
        world.settle()
    said = {"who": "dpo", "reason": "gdpr", "approver": "judge", "backups_until_us": 77}
    world.do(commands.Cleanup, **said)
    world.do(commands.Error, reason=HOST_SILENT)
    assert not world.session.finished
    assert world.settle().session.state == "DESTROYED"
    assert world.session.shredded is not None
    assert world.session.destroy is not None
    assert {name: getattr(world.session.destroy, name) for name in said} == said
    assert world.session.finished


@pytest.mark.parametrize("state", ["ACTIVE", "PAUSING", "PAUSED", "STOPPING"])
def test_a_dead_chunk_brings_an_error_that_names_it(state: str) -> None:
    """Breaks: a session waits for ever for a chunk that will never come."""
    world = started()
    world.stored, world.dead = {0: 1}, {(1, 0): "chunk.tag"}
    world.session = replace(world.session, state=state)
    assert world.settle().session.state == "ERROR"
    assert world.session.reason == "chunk.tag.1"


def test_a_dead_letter_of_a_stored_chunk_is_no_error() -> None:
    """Breaks: a doubled job that lost its race stops the recording."""
    world = started()
    world.stored, world.dead = {0: 1, 1: 2, 2: 3}, {(1, 0): "chunk.tag"}
    assert world.settle().session.state == "ACTIVE"


def test_recovery_drives_what_is_missing_once_and_forgets_old_deaths() -> None:
    """Breaks: RECOVER falls back into ERROR at once, or drives stored chunks again."""
    world = started()
    world.stored, world.dead = {0: 1}, {(1, 0): "store.io"}
    world.settle()
    world.do(commands.Recover, chunks=3)
    assert world.next() == Redrive((1, 2))
    assert world.settle().session.state == "ACTIVE"
    world.recorded[3] = 40
    assert world.next() is None, "a chunk that was recorded later is on its way under run 0"
    world.dead[3, 0] = "chunk.tag"
    assert world.settle().session.reason == "chunk.tag.3"


def test_a_chunk_that_dies_again_after_recovery_is_an_error_again() -> None:
    """Breaks: the second death is taken for the first."""
    world = started()
    world.dead = {(1, 0): "store.io"}
    world.settle()
    world.do(commands.Recover, chunks=3)
    world.settle()
    world.dead[1, 1] = "store.io"
    assert world.settle().session.state == "ERROR"


def test_an_accepted_loss_lets_the_session_be_sealed() -> None:
    """Breaks: one dead chunk keeps a whole recording unsealed for ever."""
    world = started()
    world.stored, world.dead, world.ended = {0: 1, 2: 2}, {(1, 0): "chunk.tag"}, 3
    world.settle()
    world.do(commands.AcceptLoss, index=1, reason="disk_died")
    world.do(commands.Recover, chunks=3)
    assert world.settle().session.state == "STOPPED"


def test_pause_is_complete_when_everything_in_flight_is_stored() -> None:
    """Breaks: a paused pipeline still works, or one never comes to rest."""
    world = started()
    world.do(commands.Pause)
    assert world.settle().session.state == "PAUSING"
    world.stored = {0: 1, 1: 2, 2: 3}
    assert world.settle().session.state == "PAUSED"


def test_a_recording_that_ends_while_paused_is_stopped() -> None:
    """Breaks: PAUSED for ever, although nothing is left to resume."""
    world = started()
    world.do(commands.Pause)
    world.stored, world.ended = {0: 1, 1: 2, 2: 3}, 3
    assert world.settle().session.state == "STOPPED"


def test_a_silent_host_is_an_error_that_its_return_ends() -> None:
    """Breaks: a host behind a broken line needs a person to go on."""
    world = started()
    world.now_us = 61_000_000
    assert world.settle().session.reason == HOST_SILENT
    world.now_us += 1_000_000
    assert world.next() is None
    world.heard_us = world.now_us
    assert world.settle().session.state == "ACTIVE"


def test_no_host_is_silent_while_what_it_may_have_sent_was_not_looked_at() -> None:
    """Breaks: a worker that is down, or behind on a busy machine, makes errors of sessions that are well."""
    world = started()
    world.now_us, world.looked_us = 10**12, 0
    assert world.next() is None, "nobody has looked"
    world.looked_us = world.session.moved_us + 59_000_000
    assert world.next() is None, "as far as was looked at, it was silent for 59 s"
    world.looked_us += 2_000_000
    assert world.settle().session.reason == HOST_SILENT


@pytest.mark.parametrize("then", [commands.Resume, commands.Stop])
def test_silence_counts_from_the_end_of_a_pause_on(then: type[commands.Command]) -> None:
    """Breaks: a line that breaks for a minute ends a person's pause; or nobody hears of it later."""
    world = started()
    world.stored = {0: 1, 1: 2, 2: 3}
    world.do(commands.Pause)
    world.now_us += 10**12
    assert world.settle().session.state == "PAUSED"
    world.do(then)
    assert world.settle().session.state in ("ACTIVE", "STOPPING")
    world.now_us += 61_000_000
    assert world.settle().session.reason == HOST_SILENT


def test_a_host_that_stays_away_is_ended_by_the_platform() -> None:
    """Breaks: its session is never sealed."""
    world = started()
    world.now_us = 61_000_000
    world.settle()
    world.now_us += int((LIMITS.host_return_s + 1) * 1e6)
    world.stored = {0: 1, 1: 2, 2: 3}
    world.settle()
    assert world.session.end_requested is not None
    assert world.session.end_requested.end == "host_lost"
    assert world.session.state == "STOPPED"


@pytest.mark.parametrize("state", ["ACTIVE", "PAUSED", "STOPPING"])
def test_a_requested_end_is_sent_then_sealed(state: str) -> None:
    """Breaks: `abort` does nothing."""
    world = started()
    world.session = replace(world.session, state=state)
    world.stored = {0: 1, 1: 2, 2: 3}
    world.do(commands.RequestEnd, end="aborted", reason="operator")
    assert world.settle().session.state == "STOPPED"
    assert "SendEnd" in world.done


def test_an_end_that_was_sent_is_not_sent_again() -> None:
    """Breaks: a second end fragment for one recording."""
    world = started()
    world.do(commands.RequestEnd, end="aborted", reason="operator")
    assert evaluate(replace(world.facts, end_sent=True), LIMITS) is None


def test_a_seal_that_an_error_interrupted_is_finished_after_recovery() -> None:
    """Breaks: SealStarted for ever."""
    world = started()
    world.stored, world.ended = {0: 1, 1: 2, 2: 3}, 3
    world.do(commands.Stop)
    world.do(commands.BeginSeal, **BEGIN)
    world.do(commands.Error)
    assert world.next() is None
    world.do(commands.Recover, chunks=3)
    world.do(commands.Pause)
    assert world.settle().session.state == "STOPPED"


@pytest.mark.parametrize("first", ["CREATED", "ACTIVE", "STOPPED", "ERROR"])
def test_a_destroyed_session_is_shredded_from_every_state(first: str) -> None:
    """Breaks: `destroy` says done and the keys are there."""
    world = World() if first == "CREATED" else started()
    world.session = replace(world.session, state=first)
    world.do(commands.Destroy if first == "CREATED" else commands.Cleanup)
    assert world.settle().session.state == "DESTROYED"
    assert world.session.shredded is not None
    assert world.next() is None


def test_an_error_that_a_person_made_waits_for_a_person() -> None:
    """Breaks: a stopped session starts by itself."""
    world = started()
    world.do(commands.Error, reason="operator")
    world.heard_us = world.now_us = 10**15
    assert world.next() is None


def uploading(**more: object) -> World:
    """A started session that the platform writes itself."""
    world = World()
    (event,) = decide(initial(NAME), open_upload(**more))
    world.session = evolve(initial(NAME), event, 1)
    return world.start()


def test_an_upload_that_is_stopped_gets_its_final_from_the_platform() -> None:
    """Breaks: an upload is never sealed, for nobody else ends it; or it is ended while bytes still come."""
    world = uploading()
    world.now_us += 10**12
    assert world.next() is None, "it sends no ticks: it is never silent"
    world.do(commands.Stop)
    assert world.next() == SendFinal()
    assert evaluate(replace(world.facts, final_sent=True), LIMITS) is None
    assert world.settle().session.state == "STOPPED"
    assert world.done[-4:] == ["SendFinal", "StartSeal", "MakeSeal", "StopComplete"]


def test_a_recording_beyond_its_largest_size_is_stopped_in_order() -> None:
    """Breaks: one session fills the disk although a limit was set; or it breaks off without a seal."""
    world = uploading(policy={"max_bytes": 1000})
    assert evaluate(replace(world.facts, plain=1000), LIMITS) is None
    stop = evaluate(replace(world.facts, plain=1001), LIMITS)
    assert stop == Execute(commands.Stop, {"reason": MAX_SIZE})


def test_nothing_is_sealed_while_the_pipeline_is_paused() -> None:
    """Breaks: a pipeline that a person has paused goes on; or what was stopped meanwhile is never sealed."""
    world = started()
    world.stored, world.ended = {0: 7, 1: 9, 2: 8}, 3
    world.do(commands.PausePipeline)
    assert world.settle().session.state == "STOPPING"
    world.do(commands.ResumePipeline)
    assert world.settle().session.state == "STOPPED"


def test_no_host_is_silent_or_lost_while_the_pipeline_is_paused() -> None:
    """Breaks: a person pauses the pipeline over night, and finds a session in ERROR."""
    world = started()
    world.do(commands.PausePipeline)
    world.now_us += 10**12
    assert world.next() is None
    world.do(commands.ResumePipeline)
    assert world.settle().session.reason == HOST_SILENT
    world.do(commands.PausePipeline)
    world.now_us += int((LIMITS.host_return_s + 1) * 1e6)
    assert world.next() is None


def test_an_upload_is_ended_although_its_pipeline_is_paused_and_chunks_wait_for_their_new_run() -> None:
    """Breaks: after a recovery, a paused pipeline keeps an upload from ever being ended."""
    world = uploading()
    world.recorded = {0: 1}
    world.do(commands.PausePipeline)
    world.do(commands.Error)
    world.do(commands.Recover, chunks=1)
    assert world.next() is None, "nothing is driven"
    world.dead = {(0, 0): "chunk.tag"}
    world.do(commands.Stop)
    assert world.next() == SendFinal()
    world.do(commands.ResumePipeline)
    assert world.next() == Redrive((0,))


STEPS = [
    "record",
    "store",
    "die",
    "end",
    "wait",
    "hear",
    "pause",
    "resume",
    "stop",
    "error",
    "recover",
    "abort",
    "pause pipeline",
    "resume pipeline",
]


@settings(max_examples=200)
@given(st.lists(st.sampled_from(STEPS), max_size=40))
def test_whatever_happened_the_session_comes_to_rest_and_can_still_be_sealed(steps: list[str]) -> None:
    """Breaks: two rules that answer each other for ever, or a corner from which no seal is reached."""
    world = started(1)
    simple = {
        "pause": commands.Pause,
        "resume": commands.Resume,
        "stop": commands.Stop,
        "error": commands.Error,
        "pause pipeline": commands.PausePipeline,
        "resume pipeline": commands.ResumePipeline,
    }
    for step in steps:
        world.now_us += 1_000_000
        missing = world.facts.missing
        match step:
            case "record" if world.ended is None:
                world.recorded[len(world.recorded)] = len(world.recorded) + 1
            case "store" if missing:
                world.stored[missing[0]] = world.now_us
            case "die" if missing:
                run = world.session.run if missing[0] < world.session.run_chunks else 0
                world.dead[missing[0], run] = "chunk.tag"
            case "end":
                world.ended = len(world.recorded)
            case "wait":
                world.now_us += 70_000_000
            case "hear":
                world.heard_us = world.now_us
            case "recover" if world.session.state == "ERROR" and not world.session.sealed:
                world.do(commands.Recover, chunks=len(world.recorded))
            case "abort" if world.session.state == "ACTIVE" and not world.session.seal_started:
                world.do(commands.RequestEnd, end="aborted", reason="operator")
            case _ if step in simple:
                try:
                    world.do(simple[step])
                except ValueError:
                    continue
        world.settle()
    world.do(commands.ResumePipeline)
    world.ended = len(world.recorded) if world.ended is None else world.ended
    for _ in range(3):
        if world.session.state == "ERROR" and not world.session.sealed:
            world.do(commands.Recover, chunks=len(world.recorded))
        world.stored.update(dict.fromkeys(world.facts.missing, world.now_us))
        world.settle()
    assert world.session.sealed
    assert world.session.state in ("STOPPED", "ERROR")
