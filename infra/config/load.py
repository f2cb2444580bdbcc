"""Loads the settings: the environment over the file that LUCID_CONFIG names, over the defaults.

1. Only this module reads the environment. An empty variable counts as unset.
2. Two names of one variable with two values are an error, not a guess.
3. In production NATS_URL must not point at this machine.
"""

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import platformdirs

from infra.disk.data_dir import DataDir
from schemas.config.nats_url import addresses
from schemas.config.settings import VARIABLES, Settings, StageLimits
from schemas.config.variable import Variable
from schemas.errors import Misuse

CONFIG = "LUCID_CONFIG"
IN_CONTAINER, CONTAINER_DATA = Path("/.dockerenv"), Path("/app/data")
LOCAL_HOSTS = frozenset({"localhost", "127.0.0.1", "::1", "0.0.0.0"})


def load_settings(environ: Mapping[str, str] | None = None) -> Settings:
    """Return the checked settings; raise Misuse (config.*) that names the variable and the allowed values."""
    environ = os.environ if environ is None else environ
    path = config_path(environ)
    in_file = _from_file(path) if path else {}
    found: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for variable in VARIABLES:
        given = _given(variable, environ, "in the environment") or _given(variable, in_file, f"in {path}")
        if given is None:
            continue
        text, origin = given
        found[variable.field] = variable.read(text, origin)
        origins[variable.field] = origin
    settings = _built(found, origins)
    settings.session()
    _check_production(settings)
    return settings


def config_path(environ: Mapping[str, str] | None = None) -> str:
    """Return the file that LUCID_CONFIG names; empty: none."""
    return (os.environ if environ is None else environ).get(CONFIG, "").strip()


def effective(settings: Settings) -> Settings:
    """Return the settings with a value for each unset path and level. Touches no disk."""
    data = data_dir(settings).path
    return replace(
        settings,
        data=data,
        chunks_path=settings.chunks_path or data / "chunks",
        manifests_path=settings.manifests_path or data / "manifests",
        nats_path=settings.nats_path or data / "nats",
        temp_path=settings.temp_path or data / "temp",
        keys_path=settings.keys_path or data / "keys",
        level=settings.session().level,
    )


def data_dir(settings: Settings) -> DataDir:
    """Return the data directory of the settings. Touches no disk."""
    elsewhere = {
        "chunks": settings.chunks_path,
        "manifests": settings.manifests_path,
        "nats": settings.nats_path,
        "temp": settings.temp_path,
        "keys": settings.keys_path,
    }
    path = settings.data
    if path is None:
        path = CONTAINER_DATA if IN_CONTAINER.exists() else Path(platformdirs.user_data_dir("lucid"))
    return DataDir(path, {name: where for name, where in elsewhere.items() if where is not None})


def _given(variable: Variable, source: Mapping[str, str], where: str) -> tuple[str, str] | None:
    """Return the text and the origin of a variable, under any of its names; None: it is unset."""
    set_here = [(source[name], name) for name in variable.names if source.get(name, "").strip()]
    if len({text for text, _ in set_here}) > 1:
        names = " and ".join(name for _, name in set_here)
        raise Misuse(
            f"{names} mean the same and differ {where}; keep {variable.name}", code=f"config.{variable.field}"
        )
    return (set_here[0][0], f"{set_here[0][1]} {where}") if set_here else None


def _from_file(path: str) -> dict[str, str]:
    from infra.config.file import read_file  # imports a YAML reader: only where there is a file

    texts = read_file(path, CONFIG)
    known = {name for variable in VARIABLES for name in variable.names}
    unknown = sorted(set(texts) - known)
    if unknown:
        raise Misuse(
            f"{CONFIG}: {path} sets {', '.join(unknown)[:200]}: no such variable",
            code="config.file",
            hint="lucid config template lists them all",
        )
    return texts


def _built(found: dict[str, Any], origins: dict[str, str]) -> Settings:
    plain = {name: value for name, value in found.items() if not name.startswith("stages.")}
    settings = Settings(**plain, origins=origins)
    stages = dict(settings.stages)
    for name, value in found.items():
        if name.startswith("stages."):
            _, stage, limit = name.split(".")
            stages[stage] = replace(stages[stage], **{limit: value})
    cores = os.cpu_count() or 1
    stages = {name: _resolved(limits, cores) for name, limits in stages.items()}
    if settings.debug and "log_level" not in origins:
        settings = replace(settings, log_level="DEBUG")
        origins["log_level"] = origins["debug"]
    return replace(settings, stages=stages)


def _resolved(limits: StageLimits, cores: int) -> StageLimits:
    return limits if limits.workers else replace(limits, workers=cores)


def _check_production(settings: Settings) -> None:
    if settings.environment != "production":
        return
    hosts = {server.host for server in addresses(settings.nats_url)} if settings.nats_url else set()
    if not settings.nats_url or hosts & LOCAL_HOSTS:
        raise Misuse(
            f"NATS_URL is {'not set' if not settings.nats_url else 'on this machine'}; "
            "production wants the URL of a NATS cluster",
            code="config.nats_url",
        )
