"""When a host was last heard, on a real server."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from handlers.session import initial
from infra.jetstream import Jet
from schemas import subjects
from streams import counts, topology
from streams.hearing import Hearing

ACTIVE = replace(initial("demo-01"), state="ACTIVE")
SILENT = replace(initial("demo-01"), state="ERROR")


async def test_a_host_is_heard_when_its_recording_grows(jet: Jet) -> None:
    """Breaks: a live host is called silent, or a dead one is not."""
    await topology.declare(jet, 1 << 30)
    await jet.publish(subjects.recording("host-1", "demo-01"), b"x")
    hearing = Hearing(jet, 100)
    await hearing.listen(110, [])
    assert hearing.heard_us(ACTIVE) == 100, "after a restart it counts as heard once"
    assert hearing.heard_us(SILENT) == 0, "what came before tells nothing of a silent one"
    await hearing.listen(120, [])
    assert hearing.heard_us(SILENT) == 0
    await jet.publish(subjects.recording("host-2", "demo-02"), b"x")
    await hearing.listen(130, [])
    assert hearing.heard_us(SILENT) == 0, "another session's fragment"
    await jet.publish(subjects.recording("host-1", "demo-01"), b"y")
    await hearing.listen(140, [])
    assert hearing.heard_us(SILENT) == hearing.heard_us(ACTIVE) == 140


async def test_a_host_is_heard_among_any_number_of_names(jet: Jet, monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks: made-up names, more than one answer can hold, and every live host is called silent."""
    monkeypatch.setattr(counts, "MOST_NAMES", 3)
    await topology.declare(jet, 1 << 30)
    session = initial("demo-01")
    live = replace(session, state="ACTIVE", created=SimpleNamespace(host="host-1"))
    for name in range(5):
        await jet.publish(f"lucid.rec.3.mallory.{name}", b"x")
    hearing, asked = Hearing(jet, 100), []
    real = jet.subject_counts

    async def noted(stream: str, subject: str) -> dict[str, int]:
        asked.append(subject)
        return await real(stream, subject)

    monkeypatch.setattr(jet, "subject_counts", noted)
    await hearing.listen(110, [live])
    await jet.publish(subjects.recording("host-1", session.id), b"x")
    await hearing.listen(120, [live])
    assert hearing.heard_us(live) == 120
    assert set(asked) == {subjects.recording("host-1", session.id)}


async def test_a_purge_of_a_recording_is_not_its_host(jet: Jet) -> None:
    """Breaks: freeing space brings a silent session back."""
    await topology.declare(jet, 1 << 30)
    subject = subjects.recording("host-1", "demo-01")
    first = await jet.publish(subject, b"x")
    await jet.publish(subject, b"y")
    hearing = Hearing(jet, 100)
    await hearing.listen(110, [])
    await jet.purge(subjects.RECORDINGS, subject, first.seq)
    await hearing.listen(120, [])
    assert hearing.heard_us(SILENT) == 0


async def test_a_host_is_heard_although_more_of_its_recording_went_than_came(jet: Jet) -> None:
    """Breaks: a host that fills the stream is called silent, because its own stored prefix is purged."""
    await topology.declare(jet, 1 << 30)
    subject = subjects.recording("host-1", "demo-01")
    acks = [await jet.publish(subject, b"x") for _ in range(5)]
    hearing = Hearing(jet, 100)
    await hearing.listen(110, [])
    await jet.publish(subject, b"y")
    await jet.purge(subjects.RECORDINGS, subject, acks[-1].seq)
    await hearing.listen(120, [])
    assert hearing.heard_us(ACTIVE) == 120
