"""Plays a film in a real browser without a screen (chromium), and tells how it went."""

import http.server
import json
import queue
import subprocess
import threading
from pathlib import Path
from typing import Any

from tests.support.machine.waiting import PATIENCE_S
from tests.support.machine.x_display import program

PAGE = """<!doctype html><video muted></video><script>
const tell = found => fetch('/told', {method: 'POST', body: JSON.stringify(found)});
const event = (video, name) => new Promise(done => video.addEventListener(name, done, {once: true}));
(async () => {
  const video = document.querySelector('video');
  try {
    const film = await (await fetch('/film')).blob();
    video.src = URL.createObjectURL(film);
    await event(video, 'loadedmetadata');
    const size = [video.videoWidth, video.videoHeight];
    await video.play();
    while (video.currentTime < 0.5) await new Promise(done => setTimeout(done, 20));
    const played = video.currentTime;
    video.pause();
    const sought = event(video, 'seeked');
    video.currentTime = SEEK;
    await sought;
    tell({size, played, sought: video.currentTime, error: null});
  } catch (error) { tell({error: String(error) + ' ' + (video.error && video.error.message)}); }
})();
</script>"""
OPTIONS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--autoplay-policy=no-user-gesture-required", "--remote-debugging-port=0"),
)


def played(film: bytes, seek_s: float, folder: Path) -> dict[str, Any]:
    """Size of the picture, time that was played, time after a seek; or an error."""
    told: queue.Queue[dict[str, Any]] = queue.Queue()

    class Pages(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = film if self.path == "/film" else PAGE.replace("SEEK", str(seek_s)).encode()
            self.send_response(200)
            self.send_header("Content-Type", "video/mp4" if self.path == "/film" else "text/html")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_POST(self) -> None:
            told.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, format: str, *arguments: Any) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Pages) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        page = f"http://127.0.0.1:{server.server_port}/"
        command = [program("chromium"), *OPTIONS, f"--user-data-dir={folder}", page]
        with open(folder / "chromium.log", "wb") as log:
            browser = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            return told.get(timeout=PATIENCE_S)
        finally:
            browser.terminate()
            browser.wait()
            server.shutdown()
