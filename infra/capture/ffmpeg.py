"""Runs the bundled ffmpeg: encodes a screen, decodes a recording.

1. A capture is fragmented MP4 on a pipe: browsers play it, a fragment lasts one second, and it is complete at
   any fragment if the encoder dies.
2. The encoder runs in a session of its own: Ctrl-C reaches it only through `stop`, which lets it finish its
   file. If this process dies, the encoder ends too, because its pipe has no reader.
3. Key strokes are never captured. This module must not know where the bytes go.
"""

import asyncio
import contextlib
import re
import subprocess
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path

from schemas.errors import EvidenceFalse, Unavailable
from schemas.ports.processes import Media, Picture

READ_BYTES = 1 << 16
FRAGMENT_US = 1_000_000
"""One movie fragment a second: the most that a crash of the encoder costs."""
STOP_S = 15.0
"""An encoder that has not finished by then is killed."""
STDERR_BYTES = 4096
QUALITIES = {"low": 34, "medium": 30, "high": 26, "ultra": 20}
"""The constant rate factor of x264: six less take twice the bytes."""
QUIET = ("-hide_banner", "-loglevel", "error", "-nostdin")


class Capture:
    """One running encoder. Read it to its end inside `async with`; leaving the block always ends it."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._stopped = False
        self._messages = b""
        self._listening = asyncio.create_task(self._listen())

    @classmethod
    async def start(
        cls,
        arguments: Sequence[str],
        environment: Mapping[str, str] | None = None,
        launcher: Sequence[str] = (),
    ) -> "Capture":
        """Start ffmpeg. arguments: without its path; the output goes to pipe:1. environment: None: ours.

        launcher: a command that becomes the one behind it.

        Raises Unavailable (capture.absent).
        """
        return cls(
            await asyncio.create_subprocess_exec(
                *(*launcher, ffmpeg(), *QUIET, *arguments),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                start_new_session=True,
                env=environment,
            )
        )

    async def __aenter__(self) -> "Capture":
        return self

    async def __aexit__(self, *_: object) -> None:
        self._kill()
        await self._process.wait()
        await self._listening

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """The recording's bytes as they come. Raises Unavailable (capture.failed) when the encoder failed."""
        assert self._process.stdout is not None
        while block := await self._process.stdout.read(READ_BYTES):
            yield block
        status = await self._process.wait()
        if status != 0 and not self._stopped:
            await self._listening
            text = self._messages.decode(errors="replace").strip().rsplit("\n", 1)[-1]
            how = f"signal {-status}" if status < 0 else f"exit status {status}"
            raise Unavailable(f"the encoder failed: {text or how}", code="capture.failed")

    def stop(self) -> None:
        """Let the encoder finish its file: its last bytes still come. It is killed after STOP_S."""
        if not self._stopped and self._process.returncode is None:
            self._stopped = True
            self._process.terminate()
            asyncio.get_running_loop().call_later(STOP_S, self._kill)

    async def _listen(self) -> None:
        """Read the encoder's messages all the time, and keep the last ones: a full pipe would stop it."""
        assert self._process.stderr is not None
        while block := await self._process.stderr.read(READ_BYTES):
            self._messages = (self._messages + block)[-STDERR_BYTES:]

    def _kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()


def encode(arguments: Sequence[str]) -> bytes:
    """Run ffmpeg to its end and return its output. Raises Unavailable (capture.*)."""
    done = subprocess.run((ffmpeg(), *QUIET, *arguments), capture_output=True, check=False)
    if done.returncode:
        why = done.stderr.decode(errors="replace").strip().rsplit("\n", 1)[-1]
        raise Unavailable(f"the encoder failed: {why}", code="capture.failed")
    return done.stdout


def encodes_h264() -> bool:
    """Return whether the bundled ffmpeg has an H.264 encoder. Raises Unavailable (capture.absent)."""
    command = (ffmpeg(), "-hide_banner", "-encoders")
    return "libx264" in subprocess.run(command, capture_output=True, text=True, check=False).stdout


def ffmpeg() -> str:
    """Return the path of the bundled ffmpeg. Raises Unavailable (capture.absent)."""
    import imageio_ffmpeg

    try:
        return str(imageio_ffmpeg.get_ffmpeg_exe())
    except RuntimeError as error:
        raise Unavailable(
            f"no ffmpeg for this machine: {error}",
            code="capture.absent",
            hint="install ffmpeg and set IMAGEIO_FFMPEG_EXE to its path",
        ) from None


def encoder_arguments(picture: Picture) -> list[str]:
    """Return the options for H.264 in fragmented MP4: 6-16 % of a core for a desktop, seeks in < 100 ms."""
    distance = max(1, round(picture.key_frame_s * picture.frame_rate))
    most = (f"{picture.bitrate}k", f"{2 * picture.bitrate}k") if picture.bitrate else ()
    return [
        *("-c:v", "libx264", "-preset", "veryfast", "-tune", "zerolatency"),
        *("-crf", str(QUALITIES[picture.quality])),
        *(("-maxrate", most[0], "-bufsize", most[1]) if most else ()),
        *("-pix_fmt", "yuv420p", "-g", str(distance), "-sc_threshold", "0"),
        *("-f", "mp4", "-movflags", "+frag_keyframe+empty_moov+default_base_moof"),
        *("-frag_duration", str(FRAGMENT_US)),
    ]


def decode(path: Path) -> Media:
    """Decode the whole recording. Raises EvidenceFalse (media.undecodable)."""
    done = subprocess.run(
        [
            *(ffmpeg(), "-hide_banner", "-nostdin", "-xerror", "-i", str(path)),
            *("-map", "0:v:0", "-f", "null", "-progress", "pipe:1", "-"),
        ],
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    stream = re.search(r"Video: (\w+).*?, (\d{2,5})x(\d{2,5})[ ,]", done.stderr)
    frames = re.findall(r"^frame=(\d+)", done.stdout, re.M)
    times = re.findall(r"^out_time_us=(\d+)", done.stdout, re.M)
    if done.returncode != 0 or stream is None or not frames or not times:
        last = done.stderr.strip().rsplit("\n", 1)[-1]
        raise EvidenceFalse(f"{path} does not decode: {last}", code="media.undecodable", place=str(path))
    return Media(
        codec=stream[1],
        width=int(stream[2]),
        height=int(stream[3]),
        frames=int(frames[-1]),
        seconds=int(times[-1]) / 1e6,
    )
