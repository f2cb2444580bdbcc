"""What hosts and strangers send wrongly is refused with a reason; every session around it seals and is true.

While all of it happens, one honest `lucid record` goes on, from before the first bad byte to after the last.
"""

import asyncio
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from handlers.format.fragment import FragmentSealer, SealerState, end_fragment
from schemas import subjects
from schemas.errors import Unavailable
from schemas.events.upcast import MODELS
from schemas.format.fragment import HEADER_BYTES, WINDOW
from tests.support.program.hostile_host import HostileHost, hostile_host
from tests.support.program.installation import VERB_S, Installation, Json, running, source_arguments, until

STAGE_SUBJECTS = ("recorded", "redriven", "chunked", "compressed", "encrypted", "proven", "stored")
GARBAGE = (b"", b"\x00\xff{", b"{}", b"[" * 5000, b'{"type":"lucid.chunk.recorded.v1"}')
PLAIN_FRAGMENTS = 10
"""What every session of a hostile host holds besides: its part, eight of data, its final."""
LENGTH_AT, TIME_AT = 48, 40
READERS = ("chunk", "compress", "encrypt", "merkle", "store")
READ = 6
"""Of the subjects between the stages these have a stage that reads them: all but `stored`."""


class Scene:
    """A running installation, an honest recording beside, and a folder for the hosts' keys."""

    def __init__(self, system: Installation, hosts: Path) -> None:
        self.system, self.hosts = system, hosts

    def record(self, session: str, attack: Any, host: str = "hostile") -> Json:
        """A session of a hostile host; what `show` says once it is over."""

        async def whole() -> None:
            async with hostile_host(self.system.nats_url, self.hosts, host, session) as one:
                await one.data(4)
                await attack(one)
                await one.data(4)
                await one.finish()

        asyncio.run(whole())
        return self.system.until_sealed(session)


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    folder = tmp_path_factory.mktemp("scene")
    with running(folder / "data") as system:
        honest = system.started(
            *("record", *source_arguments("-"), "--session", "honest", "--json"), CHUNK_SIZE_MB="0.25"
        )
        sent = say(honest)
        yield Scene(system, folder / "hosts")
        sent += say(honest)
        check_honest(system, honest, sent)
    shutil.rmtree(folder)


def say(honest: "subprocess.Popen[bytes]") -> int:
    assert honest.stdin is not None
    block = os.urandom(400_000)
    honest.stdin.write(block)
    honest.stdin.flush()
    return len(block)


def check_honest(system: Installation, honest: "subprocess.Popen[bytes]", sent: int) -> None:
    """The recording that went on through everything has lost nothing, and was refused nothing."""
    out, err = honest.communicate(timeout=VERB_S)
    assert honest.returncode == 0, out + err
    shown = system.show("honest")
    assert (shown["sealed"], shown["plain"], shown["refused"]) == (True, sent, [])
    assert system.json("verify", "honest", "--open", "--strict")["verdict"] == "true"


def check_true(system: Installation, session: str, *notes: str) -> None:
    """The session is true, with exactly these notes."""
    said = system.json("verify", session, "--open")
    assert (said["verdict"], said["findings"]) == ("true", [])
    assert {note["code"] for note in said["notes"]} == set(notes)
    if notes:
        assert system("verify", session, "--strict", "--json").status == 3


def flipped(fragment: bytes, at: int) -> bytes:
    raw = bytearray(fragment)
    raw[at] ^= 1
    return bytes(raw)


# each of these sends one bad message, rightly signed unless it says otherwise


async def wrong_chain(one: HostileHost) -> None:
    """For the right place, after a fragment that never was."""
    state = one.sealer.state
    stray = SealerState(state.next_seq, bytes(range(32)), state.part, state.plain)
    await one.send(one.fork(stray).tick(one.now_us()))


async def wrong_part(one: HostileHost) -> None:
    state = one.sealer.state
    stray = SealerState(state.next_seq, state.head, state.part + 1, state.plain)
    await one.send(one.fork(stray).tick(one.now_us()))


async def wrong_signature(one: HostileHost) -> None:
    await one.send(flipped(one.fork().tick(one.now_us()), -1))


async def changed_on_its_way(one: HostileHost) -> None:
    await one.send(flipped(one.fork().tick(one.now_us()), TIME_AT))


async def empty(one: HostileHost) -> None:
    await one.send(b"")


async def truncated_in_its_header(one: HostileHost) -> None:
    await one.send(one.fork().tick(one.now_us())[: HEADER_BYTES - 1])


async def truncated_in_its_signature(one: HostileHost) -> None:
    await one.send(one.fork().pause("x", one.now_us())[:-1])


async def too_long(one: HostileHost) -> None:
    await one.send(one.fork().tick(one.now_us()) + b"\0")


async def a_lying_length(one: HostileHost) -> None:
    whole = bytearray(one.fork().tick(one.now_us()))
    whole[LENGTH_AT : LENGTH_AT + 4] = b"\xff\xff\xff\xff"
    await one.send(bytes(whole))


async def noise(one: HostileHost) -> None:
    await one.send(b"noise" + os.urandom(4000))


async def oversized_headers(one: HostileHost) -> None:
    """The fragment itself is good."""
    headers = {"traceparent": "00-" + "f" * 30_000, "ce-id": "x" * 30_000}
    await one.send(one.fork().tick(one.now_us()), headers=headers)


async def another_host_s(one: HostileHost) -> None:
    """The fragment itself is good; who sends it is not the session's host."""
    await one.send(one.fork().tick(one.now_us()), subjects.recording("stranger", one.grant.session))


async def another_session_s(one: HostileHost) -> None:
    grant = one.grant
    copy = FragmentSealer(os.urandom(16), 0, grant.sign_key, grant.intake_public, grant.genesis)
    copy.state = one.sealer.state
    await one.send(copy.tick(one.now_us()))


async def an_end_of_its_own(one: HostileHost) -> None:
    """Only the installation may say that a recording was aborted."""
    grant, tail = one.grant, one.sealer.tail()
    await one.send(end_fragment(grant.uid, "aborted", "forged", (tail,), one.now_us(), grant.sign_key))


REFUSED = {
    wrong_chain: "fragment.chain",
    wrong_part: "fragment.part",
    wrong_signature: "fragment.signature",
    changed_on_its_way: "fragment.signature",
    empty: "fragment.size",
    truncated_in_its_header: "fragment.size",
    truncated_in_its_signature: "fragment.length",
    too_long: "fragment.length",
    a_lying_length: "fragment.length",
    noise: "fragment.magic",
    oversized_headers: "fragment.headers",
    another_host_s: "fragment.host",
    another_session_s: "fragment.uid",
    an_end_of_its_own: "fragment.signature",
}


def test_a_bad_fragment_is_refused_by_name_and_changes_nothing(scene: Scene) -> None:
    """Breaks: one forged message stops a recording, comes into the evidence, or vanishes without a word."""

    async def all_of_them(one: HostileHost) -> None:
        for attack in REFUSED:
            await attack(one)
            await one.data(1)

    scene.record("attacked", all_of_them)
    shown = scene.system.until("attacked", lambda said: len(said["refused"]) >= len(REFUSED))
    assert (shown["fragments"], shown["lost"]) == (len(REFUSED) + PLAIN_FRAGMENTS, {})
    assert {refusal["stage"] for refusal in shown["refused"]} == {"record"}
    in_order = sorted(shown["refused"], key=lambda refusal: int(refusal["seq"]))
    assert [refusal["code"] for refusal in in_order] == list(REFUSED.values())
    told = scene.system("sessions", "show", "attacked").out
    assert [code for code in REFUSED.values() if code not in told] == []
    assert max(len(line) for line in told.splitlines()) <= 80
    check_true(scene.system, "attacked")


def test_of_many_refusals_the_first_are_told_and_all_are_counted(scene: Scene) -> None:
    """Breaks: what somebody did a thousand times looks as if it had happened a few times."""

    async def often(one: HostileHost) -> None:
        for _ in range(120):
            await wrong_signature(one)
        for _ in range(3):
            await one.jet.publish(subjects.chunk("chunked", one.grant.session), b"{}")

    scene.record("often", often)
    shown = scene.system.until("often", lambda said: said["dead"] == 103)
    assert len(shown["refused"]) == 100
    assert "103 messages refused, the first 100:" in scene.system("sessions", "show", "often").out


def test_what_is_only_untidy_costs_nothing(scene: Scene) -> None:
    """Breaks: a repeated or reordered delivery, which is every day's, becomes a loss or a refusal."""

    async def untidy(one: HostileHost) -> None:
        twice = [one.sealer.tick(one.now_us()) for _ in range(10)]
        for fragment in (*twice, *reversed(twice)):
            await one.send(fragment)
        for fragment in reversed([one.sealer.tick(one.now_us()) for _ in range(WINDOW - 1)]):
            await one.send(fragment)
        # message headers are no part of the evidence, and do not come into the log
        for trace in ("\x7f", "00-" + "f" * 2000):
            await one.send(one.sealer.tick(one.now_us()), headers={"traceparent": trace, "ce-id": "same"})

    shown = scene.record("untidy", untidy)
    assert shown["fragments"] == PLAIN_FRAGMENTS + 10 + WINDOW - 1 + 2
    assert (shown["refused"], shown["missing"], shown["equivocations"]) == ([], 0, 0)
    check_true(scene.system, "untidy")


def test_a_hole_is_declared_and_signed_and_hides_nothing_else(scene: Scene) -> None:
    """Breaks: a lost fragment is not in the manifest, or takes more with it."""

    async def holes(one: HostileHost) -> None:
        one.sealer.tick(one.now_us())  # lost without a word
        for _ in range(WINDOW + 1):
            await one.send(one.sealer.tick(one.now_us()))
        lost_us = one.now_us()
        one.sealer.tick(lost_us)  # lost, and said so
        await one.send(one.sealer.gap(lost_us, one.now_us(), 3, "disk", one.now_us()))

    shown = scene.record("holes", holes)
    assert (shown["fragments"], shown["missing"]) == (PLAIN_FRAGMENTS + WINDOW + 1 + 1, 2)
    assert "2 fragments never came" in scene.system("sessions", "show", "holes").out
    check_true(scene.system, "holes", "gap.declared", "host.gap")
    assert scene.system.json("verify", "holes")["gaps"] == 2


def test_a_host_that_says_two_things_is_named(scene: Scene) -> None:
    """Breaks: whoever has the host's key can replace what it said, unseen."""

    async def two_of_one_place(one: HostileHost) -> None:
        state = one.sealer.state
        await one.send(one.sealer.tick(one.now_us()))
        await one.send(one.fork(state).tick(one.now_us() + 99))

    assert scene.record("twofold", two_of_one_place)["equivocations"] == 1
    assert "contradicted itself 1 time" in scene.system("sessions", "show", "twofold").out
    check_true(scene.system, "twofold", "equivocation.listed")


def test_garbage_between_the_stages_is_put_aside(scene: Scene) -> None:
    """Breaks: whoever can write to one stage's subject can stop a session, or all of them."""

    async def garbage(one: HostileHost) -> None:
        for step in STAGE_SUBJECTS:
            for body in GARBAGE:
                await one.jet.publish(subjects.chunk(step, one.grant.session), body)
            await one.data(1)

    shown = scene.record("littered", garbage)
    assert (shown["fragments"], shown["lost"]) == (PLAIN_FRAGMENTS + len(STAGE_SUBJECTS), {})
    wanted = READ * len(GARBAGE)
    refused = scene.system.until("littered", lambda said: len(said["refused"]) >= wanted)["refused"]
    assert {refusal["code"] for refusal in refused} == {"event.malformed"}
    assert {refusal["stage"] for refusal in refused} == set(READERS)
    check_true(scene.system, "littered")


def test_messages_of_nobody_leave_everybody_alone(scene: Scene) -> None:
    """Breaks: a stray message takes the whole system with it, now or at the next start."""

    async def stray(one: HostileHost) -> None:
        for subject in (
            *("lucid.rec.3.hostile.never-was", "lucid.rec.3.$.%"),
            *("lucid.chunk.recorded.3.never-was", "lucid.chunk.chunked.3.no$name", "lucid.chunk.x.y.z"),
            *("lucid.lifecycle.never-was", "lucid.lifecycle.no$name", "lucid.hosts.never-was"),
            *("lucid.counters.never-was.x", "lucid.erasures.never-was", "lucid.open.never-was"),
            *("lucid.installation", "lucid.keysmade", "lucid.keycopies", "lucid.dead.x.y.z"),
        ):
            await one.jet.publish(subject, b"\xffgarbage")
        with suppress(Unavailable):  # a shard alone takes it, and of several none has this partition
            await one.jet.publish("lucid.rec.99.hostile.x", b"\xffgarbage")

    scene.record("stray", stray)
    check_true(scene.system, "stray")
    listed = {one["session"] for one in scene.system.json("sessions", "list")["sessions"]}
    assert listed >= {"honest", "stray"}
    assert "never-was" not in listed
    assert scene.system("sessions", "show", "never-was").status in (2, 4)
    scene.system.json("export", "--trust-file", scene.hosts.parent / "stray.trust.json")
    assert {one["host"] for one in scene.system.json("hosts", "list")["hosts"]} >= {"hostile"}
    shown = scene.system.json("hosts", "show", "hostile")
    assert (shown["sessions"], shown["missing"]) == (shown["last_counter"], [])
    assert "none is missing" in scene.system("hosts", "show", "hostile").out
    assert scene.system("hosts", "show", "never-was").status in (2, 4)
    scene.system.json("keys", "rotate")


def test_what_comes_for_a_session_that_is_none_is_told(scene: Scene) -> None:
    """Breaks: a host that mistypes its session's name sends into the void, and nobody can find out."""

    async def misnamed(one: HostileHost) -> None:
        for step in ("recorded", "chunked"):
            await one.jet.publish(subjects.chunk(step, "misnamed"), GARBAGE[0])
        for _ in range(3):
            await one.send(one.fork().tick(one.now_us()), subjects.recording("hostile", "misnamed"))

    scene.record("named", misnamed)
    wanted = ("1 refused by chunk (event.malformed)", "1 refused by compress (event.malformed)")
    until(lambda: all(part in absent_session(scene.system, "misnamed") for part in wanted), "refusals")
    assert "3 of host hostile waiting for it to begin" in absent_session(scene.system, "misnamed")
    assert absent_session(scene.system, "nobody") == "there is no session nobody"
    check_true(scene.system, "named")


def absent_session(system: Installation, session: str) -> str:
    """What `show` says of a session that is none."""
    told = system("sessions", "show", session, "--json")
    assert (told.status, told.json["code"]) == (4, "session.absent"), str(told)
    return str(told.json["detail"])


def test_commands_that_make_no_sense_are_answered(scene: Scene) -> None:
    """Breaks: a program that asks wrongly hangs, or brings the command service down."""

    async def asked() -> list[bytes]:
        async with hostile_host(scene.system.nats_url, scene.hosts, "hostile", "asking") as one:
            token = json.dumps(scene.system.credential()).encode()
            bodies = (
                *(b"", b"{", b"[]", b'{"session": 3}', b'{"session": "asking", "x": 1}', b"\xff" * 900),
                *(b'{"token": %s}' % token, b'{"token": %s, "session": 3}' % token),
                b'{"token": %s, "session": "nobody", "x": 1}' % token,
                *(b'{"token": 3}', b'{"token": "e30.e30.e30"}', b'{"token": "%s"}' % (b"x" * 90_000)),
            )
            answers = [
                await one.jet.request(subjects.command(name), body, 30)
                for name in ("create", "start", "stop", "show", "destroy", "recover")
                for body in bodies
            ]
            await one.finish()
            return answers

    answers = asyncio.run(asked())
    assert not [answer for answer in answers if b"command.bug" in answer]
    scene.system.until_sealed("asking")


def test_no_model_is_written_that_garbage_did_not_try() -> None:
    """Breaks: a new stage has a subject at which nobody has thrown anything."""
    steps = {name.split(".")[2] for name in MODELS if name.startswith("lucid.chunk.")}
    assert steps - {"ended"} == set(STAGE_SUBJECTS)
