"""The spans of uploads, each with an id of its own, however often the chain is read anew."""

from collections import Counter
from pathlib import Path
from typing import Any, Literal

import pytest

from infra.nats_server.server import NatsServer
from schemas.errors import NoSpace, Unavailable
from schemas.subjects import UPLOAD_HOST
from streams.event_store.recordings import Recordings
from streams.host.upload import Uploads
from tests.pipeline.test_uploads import body
from tests.support.pipeline.conducted import SETTINGS, World, system
from tests.support.pipeline.kept_spans import KeptSpans

CHUNK = SETTINGS.chunk_bytes


async def send(world: World, size: int) -> None:
    """Upload so many bytes, in a process of its own."""
    another = Uploads(world.jet, await Recordings.open(world.jet), world.here.identity)
    await another.send("u", body(bytes(size)))


async def test_a_chain_that_is_read_anew_at_the_edge_of_a_chunk_begins_its_trace_once(
    server: NatsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks: two spans have one id, and Jaeger shows one of them, at random."""
    async with system(server, tmp_path, worker=False) as world:
        await world.start("u", UPLOAD_HOST)
        kept = KeptSpans()
        world.jet.tracer = kept.tracer()
        await send(world, CHUNK)
        append, calls = world.jet.append, list[Any]()

        async def after_a_part_no_space(*args: Any) -> int:
            calls.append(args)
            if len(calls) == 2:
                raise NoSpace("full", code="stream.full")
            return await append(*args)

        with monkeypatch.context() as full:
            full.setattr(world.jet, "append", after_a_part_no_space)
            with pytest.raises(NoSpace):
                await send(world, CHUNK)
        for size in (CHUNK, 1, CHUNK - 1, CHUNK // 2, CHUNK // 2):
            await send(world, size)
    ids = Counter((span.trace_id, span.span_id) for span in kept.spans)
    assert set(ids.values()) == {1}
    begun = [span.trace_id for span in kept.spans if not span.parent_id]
    assert len(set(begun)) == len(begun) == 4
    assert {(span.trace_id, span.parent_id) for span in kept.spans if span.parent_id} <= set(ids)


@pytest.mark.parametrize("form", ["lost", "stored"])
async def test_a_fragment_without_an_answer_leaves_one_span_of_its_id(
    server: NatsServer, tmp_path: Path, form: Literal["lost", "stored"], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks: after an outage the first fragment of a trace is there twice, or its trace begins nowhere."""
    async with system(server, tmp_path, worker=False) as world:
        await world.start("u", UPLOAD_HOST)
        append, failures, kept = world.jet.append, [2, 4], KeptSpans()
        world.jet.tracer = kept.tracer()

        async def unanswered(*args: Any) -> int:
            failures[:] = [number - 1 for number in failures]
            if 0 not in failures:
                return await append(*args)
            if form == "stored":
                await append(*args)
            raise Unavailable("no answer", code="nats.timeout")

        monkeypatch.setattr(world.jet, "append", unanswered)
        for _ in range(2):
            await send(world, CHUNK)
    failed = [span for span in kept.spans if span.error]
    assert len(failed) == (2 if form == "lost" else 0)
    begun = {(span.trace_id, span.span_id) for span in kept.spans if not span.parent_id and not span.error}
    assert len({trace for trace, _ in begun}) == len(begun) == 2
    ids = Counter((span.trace_id, span.span_id) for span in kept.spans)
    assert set(ids.values()) == {1}
