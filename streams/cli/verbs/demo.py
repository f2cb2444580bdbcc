"""The verb `lucid demo`: one real recording from screen to exported evidence, and the proof that it is true.

1. It records as every session does, with smaller chunks so that there are many.
2. It uses a running system; without one it starts a system, and stops it at the end.
3. It compares the export with the encoder's bytes, and decodes it. A wrong export fails the demo.
4. It writes three things into --out, all named after the session, and overwrites nothing.
"""

import asyncio
import hashlib
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from handlers.evidence.original import original, sealed_manifest
from handlers.verify.report import Report
from handlers.verify.session import verify
from schemas.errors import EvidenceFalse, Misuse
from schemas.ports import Jet, Source
from schemas.ports.processes import Media, NewPart, Picture
from streams.cli import attach, output
from streams.cli.board import View
from streams.cli.looking import looking
from streams.cli.output import JsonFlag
from streams.cli.verbs.up import headline
from streams.cli.wait_sealed import wait_sealed
from streams.cli.wait_start import connection
from streams.event_store.session_log import SessionLog
from streams.evidence.sealed_session import keys_file, load_sealed, open_keys
from streams.evidence.trust import own_trust, trust_file
from streams.host.record_session import record_session
from streams.host.session_start import start_session
from streams.roles.drivers import (
    Installation,
    configure_logs,
    copy_at,
    decode,
    drawn_desktop,
    new_file,
    prepare_memory,
    write_copy,
)
from streams.roles.local_system import running

HOST = "demo-host"
SECONDS = 15.0
CHUNK_BYTES = 256 << 10
"""The least that is allowed: a short recording still makes more than eight chunks."""
KEY_FRAME_S = 3.0
NAMES = [f"demo-{number:02}" for number in range(1, 1000)]


def demo(
    seconds: Annotated[float, typer.Option(help="Of screen, in real time.", min=1, max=3600)] = SECONDS,
    out: Annotated[Path, typer.Option(help="Where the export goes.", file_okay=False)] = Path(),
    as_json: JsonFlag = False,
) -> None:
    """Record, seal, verify and export a session, all on this machine. Ctrl-C ends the recording early."""
    began_s, here, stop = time.monotonic(), Installation.here(), asyncio.Event()
    _check_out(out)
    configure_logs(here.settings, "demo", here.data.logs / "demo.log")

    async def work() -> dict[str, Any]:
        async with _system(here, as_json) as jet:
            return await _demo(jet, here, seconds, out, stop, as_json)

    result = attach.run(work(), stop.set)
    took_s = time.monotonic() - began_s
    result["took_s"] = round(took_s, 1)
    output.print_result(result, _closing(result, out), as_json)


def _check_out(out: Path) -> None:
    """Check before the recording that --out can be written. Raises Misuse (demo.out)."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=out).close()
    except OSError as error:
        raise Misuse(f"--out {out} cannot be written: {error.strerror}", code="demo.out") from None


@asynccontextmanager
async def _system(here: Installation, as_json: bool) -> AsyncIterator[Jet]:
    """The running system, or one of our own."""
    if here.settings.nats_url or here.data.is_owned():
        async with connection(here, "lucid-demo", serving=True) as jet:
            yield jet
    else:
        async with running(here, quiet=True, http=False) as system:
            if not as_json:
                output.say(headline(system))
            yield system.jet


async def _demo(
    jet: Jet,
    here: Installation,
    seconds: float,
    out: Path,
    stop: asyncio.Event,
    as_json: bool,
) -> dict[str, Any]:
    taken = {path.name.split(".")[0] for path in await asyncio.to_thread(lambda: [*out.glob("demo-*")])}
    session = await _free_name(jet, taken)
    frozen = here.settings.session().model_copy(update={"chunk_bytes": CHUNK_BYTES})
    view = View(jet, session)
    prepare_memory()
    try:
        async with view.following() as following:
            async with drawn_desktop(seconds, Picture(key_frame_s=KEY_FRAME_S)) as capture:
                source = _Hashed(capture)
                grant = await start_session(jet, here.identity, HOST, session, frozen)
                sent = await record_session(jet, grant, source, "x264", view, stop)
            shown = await wait_sealed(jet, session)
            await view.complete(following)
    finally:
        view.clear()
    if sent.broken is not None:
        raise sent.broken
    exported = await _export(jet, here, session, out, source.digest())
    result = {**shown, "seconds": round(sent.progress.seconds, 3), **exported}
    if jaeger := (here.data.read_run() or {}).get("jaeger_url"):
        result["trace"] = f"{jaeger}/trace/{grant.uid.hex()}"
    if not as_json:
        output.say(*view.board.lines(), _seal_line(result))
    return result


class _Hashed:
    """Hashes the encoder's bytes on their way to the publisher."""

    def __init__(self, capture: Source) -> None:
        self._capture = capture
        self._sha256 = hashlib.sha256()

    async def __aiter__(self) -> AsyncIterator[bytes | NewPart]:
        async for block in self._capture:
            if isinstance(block, bytes):
                self._sha256.update(block)
            yield block

    def stop(self) -> None:
        self._capture.stop()

    def digest(self) -> str:
        return self._sha256.hexdigest()


async def _free_name(jet: Jet, used: set[str]) -> str:
    """The first name that no file and no session ever had."""
    log = SessionLog(jet)
    for name in NAMES:
        if name not in used and not (await log.load(name)).events:
            return name
    raise Misuse(f"{NAMES[0]} to {NAMES[-1]} are all used", code="demo.names", hint="use lucid record")


async def _export(jet: Jet, here: Installation, session: str, out: Path, sha256: str) -> dict[str, Any]:
    """Verify and write out; return places and figures. Raises EvidenceFalse (a finding's code, demo.*)."""
    found = await load_sealed(jet, here.data, session)
    keys = (await open_keys(here.key_files, here.keyring, found.session)).keys
    trust = await own_trust(jet, here.signers)
    raw_trust = trust_file(trust.keys, here.signers.root(), int(time.time()))
    folder, movie, trust_to = out / session, out / f"{session}.mp4", out / f"{session}.trust.json"

    def export() -> tuple[Report, int, Media]:
        size = write_copy(found.evidence, folder)
        copy = copy_at(folder)
        report = verify(copy, trust, keys=keys_file(found.session, keys))
        with new_file(trust_to) as file:
            file.write(raw_trust)
        digest = hashlib.sha256()
        with new_file(movie) as file:
            for piece in original(copy, sealed_manifest(copy), keys):
                digest.update(piece)
                file.write(piece)
        if digest.hexdigest() != sha256:
            raise EvidenceFalse(f"{movie} is not what the encoder wrote", code="demo.bytes", place=str(movie))
        return report, size, decode(movie)

    async with (
        looking(here, jet) as looks,
        looks.look("export", session, "lucid demo", uid=found.session.uid, detail=f"to {movie}"),
    ):
        report, size, media = await asyncio.to_thread(export)
    if report.exit_code != 0:
        first = report.findings[0] if report.findings else None
        raise EvidenceFalse(
            f"{session} does not verify: {first.message if first else report.verdict}",
            code=first.code if first else "demo.verdict",
        )
    return {
        "verdict": report.verdict,
        "signer": report.summary.signer,
        "evidence": str(folder),
        "evidence_bytes": size,
        "recording": str(movie),
        "sha256": sha256,
        "frames": media.frames,
        "trust_file": str(trust_to),
    }


def _seal_line(result: Mapping[str, Any]) -> str:
    seal = result["seal"]
    leaves, root = output.count_of(seal["chunks"], "leaf"), output.digits(seal["root"])
    return f"  {'seal':<9}{leaves:>13}  root {root}, signed by {output.key_digits(result['signer'])}"


def _closing(result: Mapping[str, Any], out: Path) -> list[str]:
    places = out / result["session"], Path(result["recording"]), Path(result["trust_file"])
    folder, movie, trust = (output.short_path(place.absolute()) for place in places)
    return [
        f"{output.coloured('verified, exported', output.GREEN)}, {result['took_s']:.1f} s",
        f"  watch it     {movie}  ({output.count_of(result['frames'], 'frame')}, as the encoder wrote them)",
        f"  verify it    lucid verify {folder} --trust {trust.removeprefix('./')}",
        f"  trace it     {result.get('trace') or 'lucid up --jaeger, then lucid demo again'}",
    ]
