"""How the command line speaks."""

import json
from pathlib import Path

import pytest

from schemas import errors
from schemas.config.values import size_text
from schemas.errors import EvidenceFalse, LucidError, Misuse, Unavailable, outcome
from streams.cli import output


def test_an_error_is_one_sentence_with_its_cure_and_its_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks: people see what failed and not what to do; scripts have nothing to compare."""
    monkeypatch.delenv("UV_RUN_RECURSION_DEPTH", raising=False)
    error = Unavailable(
        "nothing is running for ~/.local/share/lucid",
        code="server.absent",
        hint="start it: lucid up (or set NATS_URL)",
    )
    assert output.error_text(error) == (
        "lucid: nothing is running for ~/.local/share/lucid; start it: lucid up (or set\n"
        "       NATS_URL)  [server.absent]"
    )


@pytest.mark.parametrize("words", [1, 11, 12, 13, 40])
def test_every_error_fits_the_terminal_and_keeps_its_code(words: int) -> None:
    """Breaks: the code, which people search for, is cut or wrapped away."""
    lines = output.error_text(Misuse("word " * words, code="config.value")).split("\n")
    assert all(len(line) <= 80 for line in lines)
    assert lines[-1].endswith("[config.value]")


def test_every_kind_of_error_has_an_exit_code_of_its_own_meaning() -> None:
    """Breaks: a script takes false evidence for a missing file."""
    roots = (LucidError, errors.Retryable, errors.Rejected)
    kinds = [
        kind
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, LucidError) and kind not in roots
    ]
    codes = {kind.__name__: outcome(kind("x", code="a.b")).exit_code for kind in kinds}
    assert codes == {
        "Misuse": 2,
        "Misuses": 2,
        "EvidenceFalse": 3,
        "NotFound": 4,
        "Unreadable": 4,
        "RefusedByState": 5,
        "Conflict": 5,
        "Unconditional": 5,
        "Stale": 5,
        "TooLarge": 2,
        "Denied": 6,
        "Unauthenticated": 6,
        "Unavailable": 7,
        "NoSpace": 8,
        "Busy": 7,
    }


def test_an_error_under_json_is_the_problem_document(capsys: pytest.CaptureFixture[str]) -> None:
    """Breaks: a script that asked for JSON has to read English."""
    error = EvidenceFalse("chunk 2 is not what was sealed", code="chunk.digest", place="chunks/0000000002")
    assert output.report_error(error, as_json=True) == 3
    said = capsys.readouterr()
    assert said.err == ""
    assert json.loads(said.out) == {
        "title": "EvidenceFalse",
        "status": 422,
        "detail": "chunk 2 is not what was sealed",
        "code": "chunk.digest",
        "place": "chunks/0000000002",
    }


def test_piped_output_is_plain_ascii(capsys: pytest.CaptureFixture[str]) -> None:
    """Breaks: a log file or an old terminal shows garbage."""
    output.say(f"demo-01 · seq 0–21 · {output.mark(True)} {output.mark(False)} {output.coloured('x', '32')}")
    assert capsys.readouterr().out.isascii()


def test_sizes_and_digests_are_written_one_way() -> None:
    """Breaks: the same number reads differently in two places."""
    assert [size_text(n) for n in (0, 999, 1000, 812_400, 3_100_000, 10**9)] == [
        *("0 B", "999 B", "1 kB", "812 kB", "3.1 MB", "1.0 GB")
    ]
    assert output.digits(bytes.fromhex("9f2c71ab04de3c55") + bytes(24)) == "9f2c 71ab 04de 3c55"
    assert output.key_digits("5c1e88d0" * 8) == "5c1e 88d0"
    assert [output.count_of(n, "leaf") for n in (1, 9)] == ["1 leaf", "9 leaves"]


def test_a_path_is_written_as_people_write_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Breaks: messages are long, and name the person's account in every line."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    assert output.short_path(tmp_path / "home" / "x") in ("./home/x", "~/x")
    assert output.short_path(tmp_path / "demo-01") == "./demo-01"
    assert output.short_path(Path("/elsewhere")) == "/elsewhere"
