"""Runs the encoder that makes bytes of a screen, and draws a desktop of its own to record.

1. A capture is fragmented MP4 on a pipe: playable in every browser, cut into one-second fragments, complete
   at any fragment if the encoder dies.
2. The encoder is a child process in a session of its own: Ctrl-C reaches it only through `stop`, which lets
   it finish its file. It ends with us, because then its pipe has no reader. What it complains of is read all
   the time: an encoder whose complaints nobody takes stands still.
3. The desktop needs no display, no font and no network: ffmpeg draws it, in real time.
4. Key strokes are never captured. This module must not know what becomes of the bytes.
"""

import asyncio
import contextlib
import re
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

from schemas.errors import EvidenceFalse, Unavailable
from schemas.ports.processes import Media, Picture

READ_BYTES = 1 << 16
FRAGMENT_US = 1_000_000
"""One movie fragment a second: what a crash of the encoder can cost."""
STOP_S = 15.0
"""An encoder that was told to finish and did not by then is killed."""
STDERR_BYTES = 4096

# A desktop of 1280x720: wallpaper with a task bar; a hex viewer that scrolls; a picture viewer that zooms and
# is dragged now and then; a running clock; a mouse pointer that never rests.
_ARROW = "255*gt(X,0.7)*lt(X,Y*0.62-1.5)*lt(Y,22-X*0.45)"
DESKTOP = ";".join(
    [
        "gradients=s=1280x720:r={fps}:c0=0x16324f:c1=0x3f7d8c:x0=0:y0=0:x1=1280:y1=720:nb_colors=2:seed=1,"
        "format=yuv420p,trim=end_frame=1,"
        "drawbox=0:680:1280:40:0x101820:fill,drawbox=12:686:28:28:0xf2a33a:fill,"
        "drawbox=52:686:120:28:0x2b3a4a:fill,drawbox=180:686:120:28:0x3b2b4a:fill,"
        "loop=-1:1,setpts=N/{fps}/TB[wall]",
        "mandelbrot=s=160x90:r=2:start_scale=2:end_scale=0.02:end_pts=60,format=gray,scroll=v=0.011,"
        "datascope=s=552x400:mode=mono,negate,pad=560:432:4:28:color=0x2b3a4a,format=yuv420p,fps={fps}[hex]",
        "mandelbrot=s=480x270:r=5:start_scale=0.6:end_scale=0.01:end_pts=200,"
        "pad=488:302:4:28:color=0x3b2b4a,format=yuv420p,fps={fps}[picture]",
        "testsrc2=s=320x240:r={fps},crop=102:32:0:0,format=gray,format=yuv420p[clock]",
        f"color=c=white:s=18x26:r={{fps}},format=rgba,geq=r='{_ARROW}':g='{_ARROW}':b='{_ARROW}'"
        ":a='255*lte(X,Y*0.62)*lte(Y,23-X*0.45)',trim=end_frame=1,loop=-1:1,setpts=N/{fps}/TB[pointer]",
        "[wall][hex]overlay=60:70[a]",
        "[a][picture]overlay=x='700+60*mod(floor(t/6),3)':y=300:eval=frame[b]",
        "[b][clock]overlay=1168:684[c]",
        "[c][pointer]overlay=x='620+430*sin(t*0.9)':y='340+220*sin(t*1.3+1)':eval=frame,"
        "scale={width}:{height},format=yuv420p,realtime[screen]",
    ]
)


class Capture:
    """One running encoder: read it to its end inside `async with`; leaving ends it whatever happened."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._stopped = False
        self._said = b""
        self._listening = asyncio.create_task(self._listen())

    @classmethod
    async def desktop(cls, seconds: float, picture: Picture) -> "Capture":
        """Start recording the drawn desktop, in real time. Raises Unavailable (capture.absent)."""
        return cls(
            await asyncio.create_subprocess_exec(
                *_drawing(_graph(picture), seconds, picture),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                start_new_session=True,
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
            said = self._said.decode(errors="replace").strip().rsplit("\n", 1)[-1]
            how = f"signal {-status}" if status < 0 else f"exit status {status}"
            raise Unavailable(f"the encoder failed: {said or how}", code="capture.failed")

    def stop(self) -> None:
        """Let the encoder finish its file: its last bytes still come. It is killed after STOP_S."""
        if not self._stopped and self._process.returncode is None:
            self._stopped = True
            self._process.terminate()
            asyncio.get_running_loop().call_later(STOP_S, self._kill)

    async def _listen(self) -> None:
        """Keep the end of what the encoder complains of."""
        assert self._process.stderr is not None
        while block := await self._process.stderr.read(READ_BYTES):
            self._said = (self._said + block)[-STDERR_BYTES:]

    def _kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()


def drawn(seconds: float, picture: Picture) -> bytes:
    """So much of the drawn desktop, as fast as it can be drawn. Raises Unavailable (capture.*)."""
    graph = _graph(picture).replace(",realtime", "")
    done = subprocess.run(_drawing(graph, seconds, picture), capture_output=True, check=False)
    if done.returncode:
        why = done.stderr.decode(errors="replace").strip().rsplit("\n", 1)[-1]
        raise Unavailable(f"the encoder failed: {why}", code="capture.failed")
    return done.stdout


def encodes_h264() -> bool:
    """Whether the bundled ffmpeg can. Raises Unavailable (capture.absent)."""
    command = (ffmpeg(), "-hide_banner", "-encoders")
    return "libx264" in subprocess.run(command, capture_output=True, text=True, check=False).stdout


def ffmpeg() -> str:
    """Path of the bundled ffmpeg. Raises Unavailable (capture.absent)."""
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
    """H.264 in fragmented MP4; 6-16 % of a core for a desktop, seeks in < 100 ms."""
    distance = max(1, round(picture.key_frame_s * picture.frame_rate))
    return [
        *("-c:v", "libx264", "-preset", "veryfast", "-tune", "zerolatency", "-crf", "26"),
        *("-pix_fmt", "yuv420p", "-g", str(distance), "-sc_threshold", "0"),
        *("-f", "mp4", "-movflags", "+frag_keyframe+empty_moov+default_base_moof"),
        *("-frag_duration", str(FRAGMENT_US)),
    ]


def decode(path: Path) -> Media:
    """Decode the whole recording; return what is in it. Raises EvidenceFalse (media.undecodable)."""
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


def _graph(picture: Picture) -> str:
    return DESKTOP.format(fps=picture.frame_rate, width=picture.width, height=picture.height)


def _drawing(graph: str, seconds: float, picture: Picture) -> list[str]:
    return [
        *(ffmpeg(), "-hide_banner", "-loglevel", "error", "-nostdin"),
        *("-filter_complex", graph, "-map", "[screen]", "-t", f"{seconds:.3f}"),
        *(*encoder_arguments(picture), "pipe:1"),
    ]
