"""A plugin of pytest: keeps all logs of a run of tests, and fails the run if they hold a planted value.

1. Kept are: stdout and stderr of each process of `lucid` (sitecustomize.py); every event of a system inside a
   test, whatever its level; what pytest has captured on stderr; each log file below the temporary folder.
2. Personal values in tests hold the word PERSONAL, secrets the word SECRET (test_planted_values.py).
   Tokens and passwords in URLs are found by their form.
3. What a verb prints as its result may be personal, since its caller asked for it; a secret never.
"""

import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from schemas.config.logs import Told, hand_on, mask_secrets

PERSONAL, SECRET = b"zanzibar", b"kilimanjaro"
FOLDER = "TEST_LOGS"
TOKEN = rb"(?<![\w-])eyJ[\w-]{8,}\.[\w-]{8,}"
IN_URL = rb"://[^\s\"'/@*]+:[^\s\"'/@*]+@"
SECRETS = re.compile(b"|".join((SECRET, TOKEN, IN_URL)), re.IGNORECASE)
ANY = re.compile(b"|".join((PERSONAL, SECRET, TOKEN, IN_URL)), re.IGNORECASE)
SERVICES = ("up", "serve")
"""Verbs that print no personal result."""
TELLS_TOKENS = "token"
SHOWN, FOUND_MOST = 160, 50


class Finding(NamedTuple):
    """A line that holds a planted value."""

    path: Path
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.text}"


def findings(paths: Iterable[Path]) -> Iterator[Finding]:
    """Every line of these files that holds a planted value."""
    for path in paths:
        wanted = _wanted(path)
        if wanted is None:
            continue
        for number, line in enumerate(path.read_bytes().splitlines(), 1):
            if found := wanted.search(line):
                around = line[max(found.start() - SHOWN // 2, 0) : found.end() + SHOWN // 2]
                yield Finding(path, number, around.decode(errors="replace"))


def _wanted(path: Path) -> "re.Pattern[bytes] | None":
    """The values that this file must not hold; None: it may hold any."""
    if path.suffix != ".stdout":
        return ANY
    verb = path.stem.partition("-")[2]
    if verb == TELLS_TOKENS:
        return None
    return ANY if verb in SERVICES else SECRETS


def logs_below(folder: Path) -> list[Path]:
    """Every log file of the systems that tests have run there."""
    return [
        path
        for path in folder.rglob("*")
        if (path.suffix == ".log" or path.parent.name == "logs") and path.is_file() and not path.is_symlink()
    ]


def pytest_configure(config: pytest.Config) -> None:
    if FOLDER not in os.environ:  # workers of xdist keep theirs in the folder of the first process
        os.environ[FOLDER] = folder = tempfile.mkdtemp(prefix="lucid-test-logs-")
        os.chmod(folder, 0o777)
        here = str(Path(__file__).parent)
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (here, os.environ.get("PYTHONPATH"))))
        config.stash[OWN] = Path(folder)
    _keep_events(Path(os.environ[FOLDER]) / f"{os.getpid()}-tests.events")


OWN = pytest.StashKey[Path]()
FINDINGS = pytest.StashKey[list[Finding]]()


def _keep_events(path: Path) -> None:
    """Write each event of this process as a line, before its level is looked at."""
    from structlog import processors, stdlib

    by_level = stdlib.filter_by_level
    kept = path.open("a", encoding="utf-8", errors="backslashreplace")

    def keep(logger: object, method: str, event: dict[str, object]) -> object:
        masked = processors.format_exc_info(logger, method, dict(mask_secrets(logger, method, event)))
        ((told,), _) = hand_on(logger, method, masked)
        kept.write(f"{Told.__str__(told)}\n")
        kept.flush()
        return by_level(logger, method, event)

    stdlib.filter_by_level = keep


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    captured = [text for name, text in report.sections if name.startswith("Captured stderr")]
    if captured and FOLDER in os.environ:
        with (Path(os.environ[FOLDER]) / f"{os.getpid()}-reports.captured").open("a") as kept:
            kept.write("\n".join([report.nodeid.partition("[")[0], *captured, ""]))


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    own = session.config.stash.get(OWN, None)
    if own is None:
        return
    temporary = session.config._tmp_path_factory.getbasetemp()  # type: ignore[attr-defined]
    found = [*findings(sorted(own.iterdir())), *findings(logs_below(temporary))]
    session.config.stash[FINDINGS] = found
    if found:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
    else:
        shutil.rmtree(own, ignore_errors=True)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    found = config.stash.get(FINDINGS, [])
    if found:
        terminalreporter.section("secrets or personal values in logs", red=True)
        for one in found[:FOUND_MOST]:
            terminalreporter.line(str(one))
        terminalreporter.line(f"{len(found)} lines")
