"""`lucid token`, the token that `up` writes, and what a command says without one."""

import json
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import Program
from tests.support.program.running import running


@pytest.fixture(scope="module")
def data(lucid: Program, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    yield from running(lucid, tmp_path_factory.mktemp("guarded") / "data")


def test_the_operator_of_the_data_folder_needs_no_more(lucid: Program, data: Path) -> None:
    """Breaks: after `lucid up` every command of the same person is refused."""
    token = data / "admin.token"
    assert stat.S_IMODE(token.stat().st_mode) == stat.S_IMODE((data / "jwt.key").stat().st_mode) == 0o600
    assert lucid("sessions", "list", data=data).returncode == 0


def test_a_command_with_a_token_of_a_role_does_what_the_role_may(lucid: Program, data: Path) -> None:
    """Breaks: every person with a token is an administrator."""
    made = lucid("token", "--role", "AUDITOR", "--subject", "ann", "--life", "5m", "--json", data=data)
    told = json.loads(made.stdout)
    assert (told["subject"], told["roles"], told["token"].count(".")) == ("ann", ["AUDITOR"], 2)
    assert lucid("sessions", "list", data=data, LUCID_TOKEN=told["token"]).returncode == 0
    refused = lucid("keys", "rotate", data=data, LUCID_TOKEN=told["token"])
    assert (refused.returncode, "access.role" in refused.stderr) == (6, True)


def test_without_a_token_a_command_says_how_to_get_one(lucid: Program, data: Path, tmp_path: Path) -> None:
    """Breaks: a person on another machine is refused, and cannot find out why."""
    url = json.loads((data / "run.json").read_text())["nats_url"]
    said = lucid("sessions", "list", data=tmp_path / "other", NATS_URL=url)
    assert (said.returncode, "access.missing" in said.stderr, "LUCID_TOKEN" in said.stderr) == (6, True, True)
    there = lucid(
        "sessions", "list", data=tmp_path / "other", NATS_URL=url, LUCID_TOKEN_FILE=str(data / "admin.token")
    )
    assert there.returncode == 0, there.stderr
    lost = lucid(
        "sessions", "list", data=tmp_path / "other", NATS_URL=url, LUCID_TOKEN_FILE=str(tmp_path / "no")
    )
    assert (lost.returncode, "access.file" in lost.stderr) == (4, True)


@pytest.mark.parametrize(
    "arguments",
    [
        ("--role", "KING"),
        ("--role", "HOST"),
        ("--role", "ADMIN", "--life", "31d"),
        ("--role", "ADMIN", "--life", "soon"),
        ("--role", "ADMIN", "--subject", "a\nb"),
        (),
    ],
)
def test_a_token_that_makes_no_sense_is_not_made(
    lucid: Program, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    """Breaks: a misspelt role gives a token that opens nothing, or everything."""
    said = lucid("token", *arguments, data=tmp_path / "data")
    assert (said.returncode, said.stdout) == (2, "")


def test_in_production_the_auth_service_makes_the_tokens(lucid: Program, tmp_path: Path) -> None:
    """Breaks: a person passes by the accounts of the house."""
    made = {"LUCID_ENV": "production", "NATS_URL": "nats://nats.example:4222"}
    said = lucid(
        "token", "--role", "ADMIN", data=tmp_path / "data", **made, JWT_JWKS_URL="https://auth.example/keys"
    )
    assert (said.returncode, "access.issuer" in said.stderr, said.stdout) == (6, True, "")
