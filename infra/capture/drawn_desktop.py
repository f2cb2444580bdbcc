"""Draws a desktop to record: it needs no display, no font and no network.

ffmpeg draws it, in real time or as fast as it can.
"""

from infra.capture.ffmpeg import Capture, encode, encoder_arguments
from schemas.ports.processes import Picture

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
        "[wall][hex]overlay=60:70[a]",
        "[a][picture]overlay=x='700+60*mod(floor(t/6),3)':y=300:eval=frame[b]",
        "[b][clock]overlay=1168:684[c]",
    ]
)
POINTER = (
    f"color=c=white:s=18x26:r={{fps}},format=rgba,geq=r='{_ARROW}':g='{_ARROW}':b='{_ARROW}'"
    ":a='255*lte(X,Y*0.62)*lte(Y,23-X*0.45)',trim=end_frame=1,loop=-1:1,setpts=N/{fps}/TB[pointer];"
    "[c][pointer]overlay=x='620+430*sin(t*0.9)':y='340+220*sin(t*1.3+1)':eval=frame,"
)
SCREEN = "scale={width}:{height},format=yuv420p,realtime[screen]"


async def record_desktop(seconds: float, picture: Picture) -> Capture:
    """Start recording the desktop, in real time. Raises Unavailable (capture.absent)."""
    return await Capture.start(_drawing(_graph(picture), seconds, picture))


def drawn(seconds: float, picture: Picture) -> bytes:
    """Return so many seconds of the desktop, drawn as fast as possible. Raises Unavailable (capture.*)."""
    return encode(_drawing(_graph(picture).replace(",realtime", ""), seconds, picture))


def _graph(picture: Picture) -> str:
    graph = f"{DESKTOP};{POINTER if picture.cursor else '[c]'}{SCREEN}"
    return graph.format(fps=picture.frame_rate, width=picture.width, height=picture.height)


def _drawing(graph: str, seconds: float, picture: Picture) -> list[str]:
    return [
        *("-filter_complex", graph, "-map", "[screen]", "-t", f"{seconds:.3f}"),
        *(*encoder_arguments(picture), "pipe:1"),
    ]
