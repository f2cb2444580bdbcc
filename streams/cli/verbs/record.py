"""The verb `lucid record`: records one source until it ends or is stopped.

The exit status says whether the recording is complete: 7 if the source broke off, 4 if it was empty, 8 if
there was no space for all of it. The session is ended and sealed in each of these cases.
"""

import asyncio
import re
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

import typer

from schemas import subjects
from schemas.api.requests import HEIGHT, WIDTH, RecordingStart
from schemas.config.values import size_text
from schemas.errors import LucidError, Misuse, NotFound
from schemas.events.session import CaptureSettings, SessionSettings
from schemas.ports import Jet
from schemas.ports.processes import Picture
from streams.api.asked_sessions import about_recording, recorded_settings
from streams.cli import attach, output
from streams.cli import session_members as members
from streams.cli.board import View, tell
from streams.cli.output import JsonFlag
from streams.cli.session_members import OPTIONS, checked, given
from streams.cli.wait_sealed import wait_sealed
from streams.host.fragment_message import fragment_bytes
from streams.host.publisher import READ_FRAGMENTS, Progress
from streams.host.record_session import Sent, record_session
from streams.host.session_start import About, new_name, start_session
from streams.roles.drivers import FileSource, Installation, drawn_desktop, own_host, prepare_memory

FOREVER_S = 10 * 365 * 86_400.0
SIZE = "1280x720"
RESOLUTION = re.compile(f"{WIDTH}x{HEIGHT}")


def record(
    source: Annotated[
        str, typer.Option("--input", "-i", metavar="FILE|-", help="A file, or - for standard input.")
    ] = "",
    desktop: Annotated[
        bool, typer.Option("--desktop", help="Record a desktop that is drawn for it.")
    ] = False,
    session: Annotated[str, typer.Option(help="Its name; default: host, time, random digits.")] = "",
    host: Annotated[str, typer.Option(help="The recording host; default: this machine's name.")] = "",
    seconds: Annotated[float, typer.Option(help="Stop after so long; 0: never.", min=0)] = 0,
    name: members.Title = None,
    description: members.Description = None,
    owner: members.Owner = None,
    project: members.Project = None,
    environment: members.Environment = None,
    tag: members.Tags = None,
    priority: members.Priority = None,
    retention_days: members.RetentionDays = None,
    max_size_gb: members.MaxSize = None,
    encryption: members.Encryption = None,
    compression: members.Compression = None,
    size: members.Size = None,
    frame_rate: members.FrameRate = None,
    quality: members.Quality = None,
    bitrate: members.Bitrate = None,
    cursor: members.Cursor = None,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until it is sealed.")] = True,
    as_json: JsonFlag = False,
) -> None:
    """Record a session: a file, standard input, or a drawn desktop. Ctrl-C ends it in order."""
    if bool(source) == desktop:
        raise Misuse(
            "name one source: --input FILE, --input - or --desktop",
            code="usage",
            hint="see lucid record --help",
        )
    picture = given(resolution=size, frame_rate=frame_rate, quality=quality, bitrate=bitrate, cursor=cursor)
    metadata = given(
        description=description,
        owner=owner,
        project=project,
        environment=environment,
        tags=tag,
        priority=priority,
    )
    storage = given(
        retention_days=retention_days,
        max_size_gb=max_size_gb,
        encryption=encryption,
        compression=compression,
    )
    asked = recording_asked(given(name=name, metadata=metadata, storage_config=storage), picture, desktop)
    here = Installation.here()
    host = subjects.host_id(host or own_host())
    options = _Options(
        host=host,
        session=subjects.session_id(session or new_name(host)),
        named=bool(session),
        path="" if desktop else source,
        settings=recorded_settings(asked, here.settings),
        about=about_recording(asked, captures=desktop),
        seconds=seconds,
        wait=wait,
    )
    stop = asyncio.Event()

    async def work() -> dict[str, Any]:
        async with attach.attached(serving=True, name="lucid-host") as jet:
            return await _record(jet, here, options, stop)

    result = attach.run(work(), stop.set)
    output.print_result(result, [summary(result)], as_json)


@dataclass(frozen=True, slots=True)
class _Options:
    """The command line. named: the person chose the session's name. path: empty for the desktop."""

    host: str
    session: str
    named: bool
    path: str
    settings: SessionSettings
    about: About
    seconds: float
    wait: bool


async def _record(jet: Jet, here: Installation, options: _Options, stop: asyncio.Event) -> dict[str, Any]:
    host, session, path, seconds = options.host, options.session, options.path, options.seconds
    view, frozen, about = View(jet, session), options.settings, options.about
    start = partial(
        start_session, jet, here.identity, host, session, frozen, once=not options.named, about=about
    )
    prepare_memory()
    if path and seconds:
        asyncio.get_running_loop().call_later(seconds, stop.set)
    try:
        async with view.following():
            block_bytes = READ_FRAGMENTS * fragment_bytes(frozen.chunk_bytes, jet.max_payload)
            # the source first: an unreadable one must not leave a session behind
            if path:
                file = FileSource(path, block_bytes)
                grant = await start()
                view.board.source_bytes = file.size_bytes
                sent = await record_session(jet, grant, file, "opaque", view, stop)
                if file.changed:
                    tell(f"lucid: NOTE {path} was written to while it was read: the bytes read are sealed")
            else:
                picture = Picture.of(about.capture or CaptureSettings())
                async with drawn_desktop(seconds or FOREVER_S, picture) as capture:
                    grant = await start()
                    sent = await record_session(jet, grant, capture, "x264", view, stop)
            shown = await wait_sealed(jet, session, grant.credential) if options.wait else {}
    finally:
        view.clear()
    result = _result(session, host, sent.progress, shown)
    if sent.broken is not None:
        raise incomplete(sent, result)
    if not sent.progress.plain and not stop.is_set():
        raise NotFound(
            f"nothing came from {file.name if path else 'the encoder'}: {session} is recorded without a byte",
            code="record.empty",
            hint=f"lucid sessions show {session}",
        )
    return result


def recording_asked(given: dict[str, Any], picture: dict[str, Any], desktop: bool) -> RecordingStart:
    """Return the request of a recording. Raises Misuse (record.size, record.capture, option.value)."""
    if picture and not desktop:
        options = ", ".join(f"--{OPTIONS.get(name, name).replace('_', '-')}" for name in picture)
        raise Misuse(
            f"{options} would change nothing: a file is recorded as it is (allowed with --desktop)",
            code="record.capture",
            hint="leave it out, or record with --desktop",
        )
    size = str(picture.get("resolution", SIZE))
    if RESOLUTION.fullmatch(size) is None:
        raise Misuse(f"--size {size} is not WIDTHxHEIGHT within 320x240 and 7680x4320", code="record.size")
    return checked(RecordingStart, {**given, "recording_config": {**picture, "resolution": size}})


def summary(result: dict[str, Any]) -> str:
    """The result in one sentence."""
    sent = amount(result)
    if "seal" not in result:
        return f"{result['session']} recorded: {sent};\nsee lucid sessions show {result['session']}"
    chunks, root = output.count_of(result["recorded"], "chunk"), output.digits(result["seal"]["root"])
    how = f"{result['end']['end']} ({result['end']['reason']})" if "end" in result else "recorded"
    return f"{result['session']} {how} and sealed: {sent}, {chunks},\nroot {root}"


def amount(result: dict[str, Any]) -> str:
    return f"{output.count_of(result['fragments'], 'fragment')}, {size_text(result['plain'])}"


def incomplete(sent: Sent, result: dict[str, Any]) -> LucidError:
    """The error that broke a recording off, with its recorded part."""
    error, session = sent.broken, result["session"]
    assert error is not None
    state = "recorded and sealed" if "seal" in result else "recorded"
    text = f"{error.message}; {session} is {state} up to there: {amount(result)}"
    return type(error)(text, code=error.code, hint=f"lucid sessions show {session}")


def _result(session: str, host: str, done: Progress, shown: dict[str, Any]) -> dict[str, Any]:
    result = {
        "session": session,
        "host": host,
        "fragments": done.fragments,
        "plain": done.plain,
        "seconds": round(done.seconds, 3),
    }
    return {**shown, **result}
