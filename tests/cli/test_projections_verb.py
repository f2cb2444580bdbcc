"""The verb `lucid projections`, with both stores, while a system runs."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.program.running import end, ok, up
from tests.support.servers.secantus import Secantus
from tests.support.servers.stores import STORES

Lucid = Any
"""The `Program` of conftest.py."""


@pytest.fixture(params=STORES)
def environment(request: pytest.FixtureRequest) -> dict[str, str]:
    if request.param == "sqlite":
        return {}
    server: Secantus = request.getfixturevalue("mongodb")
    return {"MONGODB_URL": f"{server.url}/projections"}


@pytest.fixture
def data(lucid: Lucid, tmp_path: Path, environment: dict[str, str]) -> Iterator[Path]:
    """The data directory of a system that runs."""
    process = up(lucid, tmp_path / "data", **environment)
    yield tmp_path / "data"
    end(process)


def test_read_models_are_made_anew_while_they_answer(
    lucid: Lucid, data: Path, environment: dict[str, str]
) -> None:
    """Breaks: an operator cannot mend a list, cannot see how far it is, or loses it meanwhile."""
    source = data.parent / "source"
    source.write_bytes(bytes(1000))
    ok(lucid, "record", "--input", str(source), "--session", "file-1", data=data, **environment)

    def listed() -> list[str]:
        page = ok(lucid, "sessions", "list", data=data, **environment)
        return [one["session"] for one in page["sessions"]]

    assert listed() == ["file-1"]
    shown = ok(lucid, "projections", "show", data=data, **environment)
    assert shown["store"] == ("MongoDB" if environment else "SQLite")
    assert (shown["documents"], shown["behind"]) == (1, 0)
    assert (data / "views.sqlite").exists() is not bool(environment)

    done = ok(lucid, "projections", "rebuild", data=data, **environment)
    assert done["events"] >= 5
    assert (done["position"], done["documents"] >= 1) == (done["newest"], True)
    after = ok(lucid, "projections", "show", data=data, **environment)
    assert after["generation"] > shown["generation"]
    assert listed() == ["file-1"]
    ok(lucid, "record", "--input", str(source), "--session", "file-2", data=data, **environment)
    assert listed() == ["file-2", "file-1"], "the projector goes on with the new ones"

    text = lucid("projections", "show", data=data, **environment).stdout
    assert text.startswith(f"{shown['store']} | 2 sessions | 0 events behind | generation ")
    line = lucid("projections", "rebuild", data=data, **environment).stdout
    assert line.startswith("read models 100%")
    assert len(line.rstrip()) <= 80
