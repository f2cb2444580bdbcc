"""Makes the pictures of observability.md anew, from a real run of three minutes: `just pictures`.

1. `lucid up --jaeger`, a Prometheus and several recordings run; a worker is killed meanwhile.
2. It needs `chromium`, the programs of `just services jaeger prometheus`, and the pages of Jaeger: JAEGER_UI
   names the folder `packages/jaeger-ui/build` of jaegertracing/jaeger-ui, built there at tag v1.76.0 by
   `npm ci --ignore-scripts && npm run build --workspaces --if-present`.
3. Nothing that stays on this machine is changed: everything runs in a temporary folder.
"""

import json
import os
import pty
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
from PIL import Image
from rich.console import Console
from rich.text import Text

sys.path.insert(0, str(Path(__file__).parent))
from dashboard_page import WIDTH, page

from infra.processes.jaeger import find_jaeger
from infra.processes.machine import held_port
from streams.bench.data import SCREEN, make_source

HERE = Path(__file__).parent / "observability"
SERVICES = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lucid-sessions" / "services"
ROWS = ("Now", "Stages", "Recordings and hosts")
COLOURS = 64
CHROMIUM = "--headless --no-sandbox --disable-gpu --hide-scrollbars --no-first-run --disable-sync"
CHROMIUM += " --disable-background-networking --disable-component-update --virtual-time-budget=20000"
SVG = """<svg viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg"><style>
.{unique_id}-matrix {{ font-family: monospace; font-size: {char_height}px; line-height: {line_height}px }}
.{unique_id}-title {{ font-size: 18px; font-family: sans-serif }}
{styles}</style><defs><clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}"/></clipPath>{lines}</defs>{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">{backgrounds}
<g class="{unique_id}-matrix">{matrix}</g></g></svg>
"""
"""That of rich, without the fonts that it fetches."""

Told = dict[str, Any]


class Run:
    """A system, and what runs beside it, in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {
            **{name: value for name, value in os.environ.items() if name != "NO_COLOR"},
            "LUCID_DATA": str(folder / "data"),
            "SESSION_API_PORT": "0",
            "WORKER_PROCESSES": "2",
            "CHUNK_SIZE_MB": "1",
            "COMPRESSION_LEVEL": "16",
            "TERM": "xterm",
            "WAIT_START": "20",
        }

    def start(self, *words: str) -> "subprocess.Popen[str]":
        log = (self.folder / "log").open("a")
        command = [sys.executable, "-P", "-m", "streams.cli.main", *words]
        return subprocess.Popen(command, env=self.environment, stdout=subprocess.PIPE, stderr=log, text=True)

    def json(self, *words: str) -> Told:
        process = self.start(*words, "--json")
        out, _ = process.communicate(timeout=60)
        told: Told = json.loads(out)
        return told

    def on_terminal(self, name: str, *words: str) -> None:
        """Draw the output of a command on a terminal of 80 columns, as it was."""
        master, slave = pty.openpty()
        command = [sys.executable, "-P", "-m", "streams.cli.main", *words]
        with subprocess.Popen(command, env=self.environment, stdin=slave, stdout=slave, stderr=slave):
            os.close(slave)
            written = b""
            try:
                while block := os.read(master, 1 << 16):
                    written += block
            except OSError:  # the terminal's other end is closed
                os.close(master)
        with open(os.devnull, "w") as nowhere:
            console = Console(record=True, width=80, file=nowhere, force_terminal=True)
            console.print(
                Text.from_ansi(
                    f"$ lucid {' '.join(words)}\n{written.decode()}".replace("\r", "").rstrip() + "\n "
                )
            )
        drawn = console.export_svg(title="", code_format=SVG, unique_id=name)
        (HERE / f"{name}.svg").write_text("\n".join(line.rstrip() for line in drawn.splitlines()) + "\n")


@contextmanager
def ended(process: "subprocess.Popen[str]") -> Iterator["subprocess.Popen[str]"]:
    try:
        yield process
    finally:
        process.terminate()
        process.wait(60)


def with_ui(folder: Path) -> str:
    """A program `jaeger` that serves the built pages."""
    ui = os.environ.get("JAEGER_UI", "")
    jaeger = find_jaeger()
    if not (ui and Path(ui, "index.html").exists() and jaeger):
        sys.exit("JAEGER_UI names no built jaeger-ui, or jaeger is missing; see docs/pictures.py")
    script = folder / "jaeger"
    option = f"--set=extensions.jaeger_query.ui.assets_path={ui}"
    script.write_text(f'#!/bin/sh\nexec "{jaeger}" "$@" "{option}"\n')
    script.chmod(0o755)
    return str(script)


@contextmanager
def prometheus(folder: Path, target: str) -> Iterator[str]:
    """A Prometheus that reads /metrics of the system, and the rules; where it answers."""
    jobs = [{"job_name": "lucid", "static_configs": [{"targets": [target]}]}]
    config = {"global": {"scrape_interval": "2s"}, "scrape_configs": jobs}
    config |= {"rule_files": [str(HERE / "alerts.yml")]}
    (folder / "prometheus.json").write_text(json.dumps(config))
    with held_port(9090) as held:
        place = f"127.0.0.1:{held.getsockname()[1]}"
    options = (f"--config.file={folder / 'prometheus.json'}", f"--storage.tsdb.path={folder / 'tsdb'}")
    command = [SERVICES / "prometheus", *options, f"--web.listen-address={place}", "--log.level=error"]
    with ended(subprocess.Popen(command, text=True)):
        yield f"http://{place}"


def screenshot(url: str, name: str, height: int, width: int = WIDTH) -> None:
    """Keep the picture of a page, with few colours: it is small then."""
    path = HERE / f"{name}.png"
    with tempfile.TemporaryDirectory(prefix="pictures-") as profile:
        options = [*CHROMIUM.split(), f"--user-data-dir={profile}", f"--window-size={width},{height}"]
        subprocess.run(["chromium", *options, f"--screenshot={path}", url], check=True, capture_output=True)
    Image.open(path).convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)
    print(f"{path.name}: {path.stat().st_size / 1e3:.0f} kB")


def record_and_look(run: Run, source: Path) -> float:
    """Three minutes of recordings, with a killed worker. Return a moment at which they still run."""
    desks = [
        run.start("record", "--desktop", "--seconds", "150", "--host", f"desk-{n}", "--session", f"shift-{n}")
        for n in (1, 2)
    ]
    file = ("--input", str(source), "--host", "archive")
    long = run.start("record", *file, "--session", "film-1")
    time.sleep(25)
    run.on_terminal("watch", "watch", "--no-follow")
    run.on_terminal("where", "sessions", "where", "film-1")
    long.wait(120)
    again = run.start("record", *file, "--session", "film-2")
    time.sleep(15)
    run_pid = json.loads((run.folder / "data" / "run.json").read_text())["pid"]
    for child in psutil.Process(run_pid).children():
        if "worker" in child.cmdline():
            os.kill(child.pid, signal.SIGKILL)
    again.wait(120)
    time.sleep(15)
    until_s = time.time()
    for desk in desks:
        desk.wait(240)
    return until_s


def richest(up: Told, run: Run) -> str:
    """The trace of a chunk that has the most spans: that of a chunk whose worker was killed."""
    sessions = run.json("sessions", "list")["sessions"]
    uids = [one["uid"] for one in sessions if one["session"] == "film-2"]
    with urllib.request.urlopen(f"{up['jaeger_url']}/api/traces/{uids[0]}") as answer:
        (session,) = json.load(answer)["data"]
    linked = {ref["traceID"] for span in session["spans"] for ref in span.get("references", ())}
    counted = {}
    for trace_id in linked - {session["traceID"]}:
        with urllib.request.urlopen(f"{up['jaeger_url']}/api/traces/{trace_id}") as answer:
            counted[trace_id] = len(json.load(answer)["data"][0]["spans"])
    return max(counted, key=lambda trace_id: counted[trace_id])


def main() -> None:
    if shutil.which("chromium") is None or not (SERVICES / "prometheus").exists():
        sys.exit("chromium or prometheus is missing; see docs/pictures.py")
    with tempfile.TemporaryDirectory(prefix="lucid-pictures-") as name:
        run = Run(Path(name))
        run.environment["JAEGER_BIN"] = with_ui(run.folder)
        source = make_source(SCREEN, 60_000_000, run.folder).path
        with ended(run.start("up", "--jaeger", "--json")) as process:
            assert process.stdout is not None
            up = json.loads(process.stdout.readline())
            with prometheus(run.folder, up["api_url"].removeprefix("http://")) as asked:
                began_s = time.time()
                time.sleep(5)
                until_s = record_and_look(run, source)
                told = "Panels of dashboard.json, evaluated by Prometheus over a real run: no Grafana"
                text, height = page(asked, began_s, until_s, ROWS, told)
                (run.folder / "dashboard.html").write_text(text)
                screenshot(f"file://{run.folder / 'dashboard.html'}", "dashboard", height)
                screenshot(f"{up['jaeger_url']}/trace/{richest(up, run)}", "trace", 680, 1700)


if __name__ == "__main__":
    main()
