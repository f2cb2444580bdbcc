"""Real X11 displays without a screen (Xvfb), and the programs that move them."""

import contextlib
import os
import random
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from infra.capture.x11_cookie import written_cookie
from tests.support.machine.absent import absent

SCREEN = "1024x768x24"
COOKIE = bytes(range(16))
NUMBERS, TRIES = range(200, 1000), 20


def program(name: str) -> str:
    """Its path. Without it the test is skipped; in CI it fails."""
    found = shutil.which(name)
    if found is None:
        absent(name, "uv run just packages")
    return str(found)


@contextlib.contextmanager
def xvfb(folder: Path, cookie: bytes = COOKIE, screen: str = SCREEN) -> Iterator[int]:
    """The number of a display of its own, which asks for the cookie."""
    known = folder / "xvfb-authority"
    known.write_bytes(written_cookie(0, cookie).replace(b"\0\x010", b"\0\0"))  # whatever number it has
    for number in random.sample(NUMBERS, TRIES):
        server, is_ready = _xvfb(number, folder, known, screen)
        try:
            if is_ready:
                yield number
                return
        finally:
            server.terminate()
            server.wait()
    raise AssertionError((folder / "xvfb.log").read_text())


def _xvfb(number: int, folder: Path, known: Path, screen: str) -> tuple[subprocess.Popen[bytes], bool]:
    """The server, and whether the number is its own: it locks the number that it is given, and no other."""
    read, write = os.pipe()
    with open(read, "rb") as told, open(folder / "xvfb.log", "wb") as log:
        command = [program("Xvfb"), f":{number}", "-displayfd", str(write), "-screen", "0", screen]
        options = ["-nolisten", "tcp", "-nolisten", "local", "-noreset", "-auth", str(known)]
        server = subprocess.Popen([*command, *options], pass_fds=(write,), stdout=log, stderr=log)
        os.close(write)
        return server, bool(told.readline())


class Person:
    """Somebody who works on a display."""

    def __init__(self, folder: Path, number: int, cookie: bytes = COOKIE) -> None:
        known = folder / f"person-{number}"
        known.write_bytes(written_cookie(number, cookie))
        self.environment = {**os.environ, "DISPLAY": f":{number}", "XAUTHORITY": str(known)}
        self._holds_size = True

    def run(self, name: str, *arguments: str, check: bool = True) -> str:
        """What the program says."""
        command = [program(name), *arguments]
        done = subprocess.run(command, env=self.environment, check=check, capture_output=True, text=True)
        return done.stdout.strip()

    @contextlib.contextmanager
    def running(self, name: str, *arguments: str) -> Iterator[None]:
        """A program on the display, ended afterwards."""
        process = subprocess.Popen([program(name), *arguments], env=self.environment)
        try:
            yield
        finally:
            process.terminate()
            process.wait()

    def resize(self, size: str) -> None:
        """Make the display smaller than it began, or as large again."""
        if self._holds_size:  # an output that is on keeps the display at its size
            self.run("xrandr", "--output", "screen", "--off", check=False)  # it does it, and complains
            self._holds_size = False
        self.run("xrandr", "--fb", size)
