"""How a message names a command."""

import sys
from pathlib import Path
from typing import Any

import pytest

from schemas.errors import Unavailable
from streams.cli import output
from streams.cli.catalog import as_called

Lucid = Any
"""The `Program` of conftest.py."""


@pytest.fixture
def by_uv(monkeypatch: pytest.MonkeyPatch) -> None:
    """As `uv run` calls us."""
    monkeypatch.setenv("UV_RUN_RECURSION_DEPTH", "1")


def test_whatever_line_names_a_command_names_it_as_it_was_called(
    by_uv: None, capsys: pytest.CaptureFixture[str]
) -> None:
    """Breaks: who follows the README is told, here and there, a command that his shell does not find."""
    output.say("desk-1 recorded; see lucid sessions show desk-1")
    output.note("verify it: lucid verify ./x --trust FILE")
    error = output.error_text(Unavailable("run `lucid serve worker`", code="x.y", hint="start it: lucid up"))
    said = capsys.readouterr()
    assert said.out == "desk-1 recorded; see uv run lucid sessions show desk-1\n"
    assert said.err == "verify it: uv run lucid verify ./x --trust FILE\n"
    assert "run `uv run lucid serve worker`; start it: uv run lucid up" in error


def test_only_commands_are_written_anew(by_uv: None) -> None:
    """Breaks: a path or a sentence with our name in it reads as nonsense; or `uv run` stands twice."""
    same = [
        "lucid: no hosts",
        "in ~/.local/share/lucid up to now",
        "another lucid",
        "uv run lucid up",
        "lucid 1",
    ]
    assert [as_called(text) for text in same] == same


def test_a_program_that_no_shell_finds_is_named_by_its_path(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Breaks: who called .venv/bin/lucid is told a command that his shell does not find."""
    monkeypatch.delenv("UV_RUN_RECURSION_DEPTH", raising=False)
    monkeypatch.setattr(sys, "argv", [".venv/bin/lucid", "doctor"])
    monkeypatch.setenv("PATH", str(tmp_path))
    assert as_called("start it: lucid up") == "start it: .venv/bin/lucid up"
    assert as_called(as_called("lucid up")) == ".venv/bin/lucid up"
    (tmp_path / "lucid").touch(0o755)
    assert as_called("start it: lucid up") == "start it: lucid up"


def test_help_and_a_slip_name_the_program_alike(lucid: Lucid, tmp_path: Path) -> None:
    """Breaks: the usage line says one command, the message below it another."""
    uv = {"UV_RUN_RECURSION_DEPTH": "1"}
    assert lucid("watch", "--help", data=tmp_path, **uv).stdout.startswith("Usage: uv run lucid watch ")
    assert lucid("keys", data=tmp_path, **uv).stderr.startswith("Usage: uv run lucid keys [")
    assert "see uv run lucid replay --help" in lucid("replay", data=tmp_path, **uv).stderr
    assert "see uv run lucid --help" in lucid("--nope", data=tmp_path, **uv).stderr
