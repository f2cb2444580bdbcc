"""An installation as a person has it: `lucid up` in one process, every verb in another, one data directory.

1. Nothing is imported that the program runs: what it does is seen through its exit status, what it prints and
   what lies on disk.
2. Whatever happens, no verb may end in a traceback, and JSON that is asked for is JSON.
3. The environment is clean: neither settings nor a server of the person who runs the tests come in.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import psutil

MEBIBYTE = 1 << 20
STOP_S, VERB_S, WAIT_S = 120.0, 600.0, 120.0
"""Only a hang takes longer, on a busy machine too."""
FOREIGN = ("LUCID_", "NATS_", "MONGODB_", "UV_RUN_", "CHUNK_", "COMPRESSION_", "ENCRYPTION_", "JWT_")
READER = Path(__file__).parents[2] / "independent" / "reader.py"

Environment = dict[str, str]
Json = dict[str, Any]
T = TypeVar("T")


def clean(**more: str) -> Environment:
    """This process's environment without any setting of the program."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
    return {**kept, "NO_COLOR": "1", **more}


@dataclass(frozen=True)
class Done:
    """A program that has ended."""

    arguments: tuple[str, ...]
    status: int
    out: str
    err: str

    @property
    def json(self) -> Json:
        """Its one JSON result."""
        said: Json = json.loads(self.out)
        return said

    def __str__(self) -> str:
        return f"{' '.join(self.arguments)} ended with {self.status}\n{self.out}{self.err}"


def lucid_command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-P", "-m", "streams.cli.main", *map(str, arguments)]


def run(command: list[str], environment: Environment, cwd: Path, stdin: bytes | None = None) -> Done:
    """Run a program to its end; it must not show a traceback, whatever it was given."""
    ended = subprocess.run(
        command,
        env=environment,
        cwd=cwd,
        input=stdin,
        stdin=subprocess.DEVNULL if stdin is None else None,
        capture_output=True,
        timeout=VERB_S,
        check=False,
    )
    out, err = ended.stdout.decode(errors="replace"), ended.stderr.decode(errors="replace")
    done = Done(tuple(command[1:]), ended.returncode, out, err)
    assert "Traceback" not in out + err, str(done)
    assert done.status != 1, f"a bug, by its own word: {done}"
    return done


def lucid(*arguments: str | Path, data: Path, cwd: Path, stdin: bytes | None = None, **more: str) -> Done:
    """One verb, to its end."""
    environment = clean(LUCID_DATA=str(data), **more)
    return run(lucid_command(*arguments), environment, cwd, stdin)


def read_independently(copy: Path, *arguments: str | Path, cwd: Path) -> Done:
    """The reader that shares no line with the program, on an evidence copy."""
    command = [sys.executable, str(READER), str(copy), *map(str, arguments)]
    return run(command, clean(), cwd)


def at_once(*calls: Callable[[], T]) -> list[T]:
    """What each call gives; two of them run at a time, as two people would."""
    with ThreadPoolExecutor(2) as people:
        return list(people.map(lambda call: call(), calls))


def until(met: Callable[[], object], what: str, seconds: float = WAIT_S, every_s: float = 0.5) -> None:
    """Return when it is met."""
    end_s = time.monotonic() + seconds
    while not met():
        assert time.monotonic() < end_s, f"not within {seconds} s: {what}"
        time.sleep(every_s)


class Installation:
    """A data directory, and the system that may run for it."""

    def __init__(self, data: Path, *options: str, **environment: str) -> None:
        """options: of `lucid up`."""
        self.data, self.options = data, options
        self.environment = environment
        self.process: subprocess.Popen[bytes] | None = None
        self.log = data.parent / f"{data.name}.up.log"
        self._verbs: list[subprocess.Popen[bytes]] = []

    def credential(self, *_: object) -> str:
        """The token of its operator."""
        return (self.data / "admin.token").read_text().strip()

    def start(self) -> None:
        """`lucid up`; return when it says that it runs."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                lucid_command("up", "--json", *self.options),
                # A port of its own: systems that start at once would all find the usual one free.
                env=clean(LUCID_DATA=str(self.data), **{"SESSION_API_PORT": "0"} | self.environment),
                cwd=self.data.parent,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
            )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert json.loads(line or b"{}").get("status") == "running", self.log.read_text()

    def stop(self) -> int:
        """Ctrl-C; its exit status."""
        process, self.process = self.process, None
        if process is None:
            return 0
        process.send_signal(signal.SIGINT)
        try:
            process.communicate(timeout=STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            raise
        return process.returncode

    def kill(self) -> None:
        """End what is left, whatever state it is in."""
        for process in (*self._verbs, self.process):
            if process is not None and process.poll() is None:
                process.kill()
                process.communicate()

    def __call__(self, *arguments: str | Path, stdin: bytes | None = None, **more: str) -> Done:
        """One verb on this installation."""
        return lucid(*arguments, data=self.data, cwd=self.data.parent, stdin=stdin, **more)

    def json(self, *arguments: str | Path, stdin: bytes | None = None, **more: str) -> Json:
        """The JSON result of a verb that must succeed."""
        done = self(*arguments, "--json", stdin=stdin, **more)
        assert done.status == 0, str(done)
        return done.json

    def record(self, source: str | Path, session: str, *arguments: str, **more: Any) -> Json:
        """Record a source until it is sealed."""
        return self.json("record", *source_arguments(source), "--session", session, *arguments, **more)

    def started(
        self,
        *arguments: str | Path,
        own_group: bool = False,
        stderr: BinaryIO | int = subprocess.PIPE,
        **more: str,
    ) -> "subprocess.Popen[bytes]":
        """A verb that goes on. own_group: as a terminal would start it."""
        process = subprocess.Popen(
            lucid_command(*arguments),
            env=clean(LUCID_DATA=str(self.data), **more),
            cwd=self.data.parent,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            process_group=0 if own_group else None,
        )
        self._verbs.append(process)
        return process

    def show(self, session: str) -> Json:
        return self.json("sessions", "show", session)

    def until(self, session: str, wanted: Callable[[Json], object], seconds: float = WAIT_S) -> Json:
        """What `show` says, once it is as wanted."""
        end_s = time.monotonic() + seconds
        while True:
            shown = self.show(session)
            if wanted(shown):
                return shown
            assert time.monotonic() < end_s, f"{session} is not as wanted after {seconds} s: {shown}"
            time.sleep(0.3)

    def until_sealed(self, session: str) -> Json:
        return self.until(session, lambda shown: shown["state"] == "STOPPED" and shown["sealed"])

    @property
    def nats_url(self) -> str:
        """Where its NATS server is, credentials included."""
        return str(json.loads((self.data / "run.json").read_bytes())["nats_url"])


def conductor_of(system: Installation) -> psutil.Process:
    """The process of its conductor."""
    assert system.process is not None
    children = psutil.Process(system.process.pid).children()
    (found,) = (child for child in children if "conductor" in child.cmdline())
    return found


def source_arguments(source: str | Path) -> list[str]:
    """How `lucid record` is told what to read."""
    return ["--input", str(source)]


@contextmanager
def running(data: Path, *options: str, **environment: str) -> Iterator[Installation]:
    """An installation whose system runs, and stops in order."""
    installation = Installation(data, *options, **environment)
    try:
        installation.start()
        yield installation
        assert installation.stop() == 0, installation.log.read_text()
    finally:
        installation.kill()
    assert not (data / "run.json").exists()
    with contextlib.suppress(OSError):
        assert b"Traceback" not in installation.log.read_bytes(), installation.log.read_text()
