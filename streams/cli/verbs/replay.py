"""The verb `lucid replay`: makes chunks again from the recording stream.

1. A sealed session is compared with its signed manifest; damaged chunks in the store are replaced.
2. For an unsealed session, the workers make the missing chunks again under a new run.
"""

from collections import Counter
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from handlers.evidence.replay import Judgement
from schemas import subjects
from schemas.errors import EXIT_OK, EvidenceFalse, RefusedByState, outcome
from schemas.format.file_names import chunk_file
from schemas.ports import Jet
from schemas.telemetry.span_facts import CHUNKS, OUTCOME
from streams.cli import attach, output
from streams.cli.looking import ReasonOption, looking
from streams.cli.output import JsonFlag
from streams.control.client import call
from streams.event_store.recordings import Recordings
from streams.event_store.session_log import SessionLog
from streams.evidence.proof_spans import ReplaySpans
from streams.evidence.replay import Replay, Replayed
from streams.evidence.sealed_session import SealedSession, load_sealed, open_keys
from streams.evidence.sealing import material_of
from streams.roles.drivers import Installation
from streams.scheduling.threads import Threads

NAME = "lucid-replay"
"""Of this process, in traces."""
TEXTS = {
    Judgement.SAME: "made again to the byte",
    Judgement.RESTORED: "restored",
    Judgement.CONTENT_EQUAL: "content equal, bytes not reproducible with this build",
    Judgement.CONTRADICTED: "as sealed, but the recording stream holds another content",
    Judgement.IRREPARABLE: "missing or damaged, and its source was released while the session ran",
    Judgement.UNREPRODUCIBLE: "damaged, and this build does not make the sealed bytes",
}


def replay(
    session: Annotated[str, typer.Argument(metavar="SESSION", help="Its name.")],
    reason: ReasonOption = "",
    as_json: JsonFlag = False,
) -> int:
    """Make chunks again from the recording stream, and compare."""
    name = subjects.session_id(session)
    return attach.run(_replay(name, reason, as_json))


async def _replay(name: str, reason: str, as_json: bool) -> int:
    here = Installation.here()
    async with attach.attached(serving=True, name=NAME) as jet:
        try:
            found = await load_sealed(jet, here.data, name)
        except RefusedByState as error:
            if error.code != "evidence.unsealed":
                raise
            shown = await call(jet, "redrive", {"session": name})
            line = f"{name}: missing chunks are made again; see lucid watch {name}"
            output.print_result(shown, [line], as_json)
            return EXIT_OK
        async with looking(here, jet) as looks, looks.look("replay", name, reason, uid=found.session.uid):
            work = await _sealed(jet, here, found)
            with work.spans.of_session() as span:
                chunks = [chunk async for chunk in work.run()]
                good = all(chunk.outcome.good for chunk in chunks)
                span.set({CHUNKS: len(chunks), OUTCOME: "true" if good else "false"})
    result = {"session": name, "true": good, "chunks": [_json(chunk) for chunk in chunks]}
    output.print_result(result, _lines(name, chunks), as_json)
    return EXIT_OK if good else outcome(EvidenceFalse("", code="replay")).exit_code


async def _sealed(jet: Jet, here: Installation, found: SealedSession) -> Replay:
    session = found.session
    return Replay(
        recordings=await Recordings.open(jet),
        blobs=here.evidence.chunks,
        threads=Threads(),
        keys=await open_keys(here.key_files, here.keyring, session),
        manifest=here.evidence.manifest(session),
        material=await material_of(jet, SessionLog(jet), session),
        spans=await ReplaySpans.of(jet, session),
    )


def _lines(name: str, chunks: list[Replayed]) -> Iterator[str]:
    for chunk in chunks:
        if chunk.outcome not in (Judgement.SAME, Judgement.RELEASED):
            moved = f"; the damaged file is quarantine/{chunk.quarantined}" if chunk.quarantined else ""
            mark = output.mark(chunk.outcome.good)
            yield f"  chunk {chunk_file(chunk.index)} {mark} {TEXTS[chunk.outcome]}{moved}"
    counts = Counter(chunk.outcome for chunk in chunks)
    if counts[Judgement.RELEASED]:
        released = output.count_of(counts[Judgement.RELEASED], "chunk")
        yield f"  {released} as sealed; not made again: the source was released while the session ran"
    same = output.count_of(counts[Judgement.SAME], "chunk")
    yield f"{name}: {same} of {len(chunks)} {TEXTS[Judgement.SAME]}"


def _json(chunk: Replayed) -> dict[str, Any]:
    return {"index": chunk.index, "outcome": chunk.outcome.value, "quarantined": chunk.quarantined}
