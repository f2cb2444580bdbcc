"""The stores of read models that the same tests run over."""

import secrets
from collections.abc import Callable
from pathlib import Path

from infra.read_models.mongo import MongoViews
from infra.read_models.sqlite import SqliteViews
from schemas.ports.read_models import Views
from tests.support.machine.waiting import PATIENCE_S

STORES = ("sqlite", "mongodb")
Opened = Callable[[], Views]
"""Opens the same store again, as another process does."""


def store(kind: str, folder: Path, url: str) -> Opened:
    """One empty store. url: of a MongoDB server."""
    if kind == "sqlite":
        return lambda: SqliteViews(folder / "views.sqlite", busy_s=PATIENCE_S)
    database = f"t{secrets.token_hex(6)}"
    return lambda: MongoViews(f"{url}/{database}")
