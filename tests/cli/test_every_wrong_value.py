"""A wrong value of each variable stops the program's own start: one line, exit status 2."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from infra.disk.data_dir import DataDir
from infra.telemetry.otel_variables import OTEL_VARIABLES
from schemas.config.settings import VARIABLES
from schemas.config.stage_limits import STAGES
from schemas.config.variable import MASK, Variable
from tests.support.program import forked_lucid
from tests.support.program.wrong_values import is_place, wrong_place, wrong_texts

NOBODY = "nats://127.0.0.1:1"
"""A server that does not answer: a `serve` that is not refused ends with status 7."""
PAIRS = {"TLS_CERT_FILE": "TLS_KEY_FILE", "TLS_KEY_FILE": "TLS_CERT_FILE"}
"""Both or none: the other one is there."""


class Starts:
    """The program in `folder`; its data folder is locked, so that an `up` that is not refused ends, too."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.data = folder, DataDir(folder / "data")
        self.data.lock()
        self._process = subprocess.Popen(
            [sys.executable, "-P", forked_lucid.__file__, "up", "serve"],
            env={name: value for name, value in os.environ.items() if not name.startswith("UV")},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __call__(self, start: str, environ: dict[str, str]) -> tuple[int, str, str]:
        """Exit status, stdout and stderr of one start; every run of blanks is left out."""
        clean = {"LUCID_DATA": str(self.data.path), "NO_COLOR": "1", "WAIT_START": "0"}
        nats = {} if start == "up" else {"NATS_URL": NOBODY}
        asked: dict[str, Any] = {"arguments": start.split(), "folder": str(self.folder), "stdout": "open"}
        asked |= {"environment": clean | nats | environ, "unprivileged": False}
        asked |= {"file_bytes": 0, "interrupted_at": "", "signal": "", "at_once": True}
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        status = int(self._process.stdout.readline())
        said = ("".join((self.folder / name).read_text().split()) for name in ("stdout", "stderr"))
        return status, *said

    def end(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()
        self.data.unlock()


@pytest.fixture(scope="module")
def starts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Starts]:
    starts = Starts(tmp_path_factory.mktemp("starts"))
    yield starts
    starts.end()


def row(variable: Variable) -> str:
    return variable.name


def own_start(variable: Variable) -> str:
    """The service alone that works with the variable."""
    if variable.name.startswith("SESSION_") and variable.in_table:
        return f"serve {variable.name.split('_')[1].lower()}"
    if variable.name.startswith(("METRICS_", "PORT")):
        return "serve pipeline"
    if variable.name == "SESSION_STORAGE_PATH":  # of the process that runs the NATS server
        return "up"
    return "serve worker" if variable.name.partition("_")[0] in STAGES else "serve conductor"


def test_a_wrong_variable_of_opentelemetry_stops_every_start(starts: Starts) -> None:
    """Breaks: traces are off, or go nowhere, and whoever set a standard variable is not told."""
    on = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}
    for variable in OTEL_VARIABLES:
        for number, name in enumerate(variable.names):
            wrong = {name: "a\nb"} if variable.name == "OTEL_SERVICE_NAME" else {name: "wrong,=!"}
            sampler = {"OTEL_TRACES_SAMPLER": "traceidratio"} if name.endswith("SAMPLER_ARG") else {}
            start = ("up", "serve worker")[number]
            status, said, told = starts(start, {**on, **sampler, **wrong})
            assert (status, said) == (2, ""), (start, name, told)
            shown = MASK if variable.secret else ""
            assert told.startswith("".join(f"lucid: {name} in the environment is {shown}".split())), told
            assert told.endswith("".join(f"allowed: {variable.kind.allowed} [config.otel]".split())), told
            assert told.count("lucid:") == 1
            if not name.endswith("ENDPOINT"):
                assert starts(start, wrong)[0] == 7, f"nothing is traced, and {name} is refused"


def test_nothing_of_this_machine_hides_a_refusal(starts: Starts) -> None:
    """Breaks: the tests below see the refusal of another thing, and prove nothing."""
    status, said, told = starts("up", {})
    assert (status, said, "[datadir.locked]" in told) == (7, "", True)
    assert starts("serve conductor", {})[0] == 7


@pytest.mark.parametrize("variable", VARIABLES, ids=row)
def test_a_wrong_value_of_any_variable_stops_every_start(
    variable: Variable, starts: Starts, tmp_path: Path
) -> None:
    """Breaks: a service runs with another setting than the written one, and nobody is told."""
    runs = [("up", name) for name in variable.names] + [(own_start(variable), variable.name)]
    for start, name in runs:
        if is_place(variable):
            given = str(wrong_place(variable, tmp_path))
            others = {PAIRS[name]: str(tmp_path / "file")} if name in PAIRS else {}
            (tmp_path / "file").touch()
            begin, end = f"lucid: {variable.name}: {given}", ""
        else:
            given, others = wrong_texts(variable)[0], {}
            shown = MASK if variable.secret else ascii(given)
            begin = f"lucid: {name} in the environment is {shown}"
            end = f"; allowed: {variable.kind.allowed} [config.{variable.field}]"
        status, said, told = starts(start, {name: given, **others})
        assert (status, said) == (2, ""), (start, name, told)
        assert told.startswith("".join(begin.split())), (start, name, told)
        assert told.endswith("".join(end.split())), (start, name, told)
        assert told.count("lucid:") == 1
        assert not (variable.secret and given in told)
