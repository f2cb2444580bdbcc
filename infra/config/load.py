"""Loads the settings: the environment over files, over the defaults.

    environment  >  {ROLE}_CONFIG_PATH (for `lucid serve ROLE` alone)  >  LUCID_CONFIG  >  defaults

1. Only this module reads the environment. An empty variable counts as unset.
2. Two names of one variable with two values in one place are an error, not a guess.
3. Every wrong setting is reported, not only the first one.
4. The variables of OpenTelemetry are checked with them (infra/telemetry/otel_variables.py).
5. In production the rules of schemas.config.production hold, for the role of this process.
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple

import platformdirs

from infra.disk.data_dir import DataDir
from infra.telemetry.otel_variables import wrong_variables
from schemas.config.production import refusals
from schemas.config.services import ROLES
from schemas.config.settings import VARIABLES, Settings
from schemas.config.stage_limits import StageLimits
from schemas.config.variable import Variable
from schemas.errors import Misuse, raise_together

CONFIG, ROLE_CONFIG = "LUCID_CONFIG", "{}_CONFIG_PATH"
IN_CONTAINER, CONTAINER_DATA = Path("/.dockerenv"), Path("/app/data")
ENVIRONMENT = "in the environment"
ALL_ROLES = "http"
"""The role of `lucid serve` that has all five: its port is that of session-api."""
NAMES = tuple(name for variable in VARIABLES for name in variable.names)
NEAR, FAR, SHORT = 0.9, 0.6, 8
"""How alike two names are: of the environment, where most names are not ours, and of names that must be ours.

A short name of the environment is alike to many.
"""


class Source(NamedTuple):
    """One place with texts of variables. where: as it stands in a message."""

    where: str
    texts: Mapping[str, str]


class Found(NamedTuple):
    """The values that were read, and their origins, both by field."""

    values: dict[str, Any]
    origins: dict[str, str]


def load_settings(environ: Mapping[str, str] | None = None, role: str = "") -> Settings:
    """Return the checked settings of this process. role: the one that it runs alone, in small letters.

    Raises Misuse (config.*) that names the variable and the allowed values; several of them: Misuses.
    """
    environ = os.environ if environ is None else environ
    files = [Source(f"in {path}", _from_file(name, path)) for name, path in config_files(environ, role)]
    found = _read((Source(ENVIRONMENT, environ), *files))
    _place_port(found, role)
    settings = _built(found)
    settings.session()
    raise_together((*_half_pairs(settings), *refusals(settings, role), *wrong_variables(environ=environ)))
    return settings


def config_files(environ: Mapping[str, str] | None = None, role: str = "") -> list[tuple[str, str]]:
    """Return the files that hold settings for this process, the strongest first: variable and path."""
    environ = os.environ if environ is None else environ
    own = [ROLE_CONFIG.format(role.upper())] if role.upper() in ROLES else []
    return [(name, path) for name in (*own, CONFIG) if (path := environ.get(name, "").strip())]


def near_misses(environ: Mapping[str, str] | None = None) -> list[tuple[str, str]]:
    """Return names in the environment that are nearly a variable of ours, each with the right name.

    A name that begins with LUCID_ and is none of ours counts, however far it is from all of them.
    """
    known = {*NAMES, CONFIG, *(ROLE_CONFIG.format(role) for role in ROLES)}
    found = []
    for name in os.environ if environ is None else environ:
        if name not in known:
            ours = name.startswith("LUCID_")
            near = get_close_matches(name, known, 1, FAR if ours else NEAR)
            if ours or (near and len(name) >= SHORT):
                found.append((name, near[0] if near else ""))
    return sorted(found)


def effective(settings: Settings) -> Settings:
    """Return the settings with a value for each unset path, address and level. Touches no disk."""
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
        bind_address=settings.bind_address or ("0.0.0.0" if IN_CONTAINER.exists() else "127.0.0.1"),
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


def _read(sources: tuple[Source, ...]) -> Found:
    """Return each variable from the first source that has it. Raises Misuse, for all wrong ones together."""
    found, wrong = Found({}, {}), []
    for variable in VARIABLES:
        try:
            given = next(filter(None, (_given(variable, source) for source in sources)), None)
            if given is not None:
                found.values[variable.field] = variable.read(*given)
                found.origins[variable.field] = given[1]
        except Misuse as error:
            wrong.append(error)
    raise_together(wrong)
    return found


def _given(variable: Variable, source: Source) -> tuple[str, str] | None:
    """Return the text and the origin of a variable, under any of its names; None: it is unset."""
    texts = source.texts
    set_here = [(texts[name], name) for name in variable.names if texts.get(name, "").strip()]
    if len({text for text, _ in set_here}) > 1:
        names = " and ".join(name for _, name in set_here)
        raise Misuse(
            f"{names} mean the same and differ {source.where}; keep {variable.name}",
            code=f"config.{variable.field}",
        )
    return (set_here[0][0], f"{set_here[0][1]} {source.where}") if set_here else None


def _place_port(found: Found, role: str) -> None:
    """Give PORT to the role that this process runs alone. Raises Misuse (config.port): two ports for it."""
    row, port = "API" if role == ALL_ROLES else role.upper(), found.values.get("port")
    if port is None or row not in ROLES:
        return
    field = f"services.{row}.port"
    if found.values.setdefault(field, port) != port:
        raise Misuse(
            f"{found.origins['port']} is {port} and {found.origins[field]} is {found.values[field]}: "
            f"both are the port of `lucid serve {role}`",
            code="config.port",
            hint="unset PORT",
        )
    found.origins.setdefault(field, found.origins["port"])


def _half_pairs(settings: Settings) -> Iterator[Misuse]:
    """A certificate without its key, and the other way round."""
    if (settings.tls_cert is None) != (settings.tls_key is None):
        there, missing = ("TLS_CERT_FILE", "tls_key") if settings.tls_cert else ("TLS_KEY_FILE", "tls_cert")
        yield Misuse(
            f"{there} is set and {missing.upper()}_FILE is not; both or none", code=f"config.{missing}"
        )


def _from_file(variable: str, path: str) -> dict[str, str]:
    from infra.config.file import read_file  # imports a YAML reader: only where there is a file

    texts = read_file(path, variable)
    unknown = sorted(set(texts) - set(NAMES))
    if unknown:
        near = get_close_matches(unknown[0], NAMES, 1, FAR)
        raise Misuse(
            f"{variable}: {path} sets {', '.join(unknown)[:200]}: no such variable",
            code="config.file",
            hint=f"did you mean {near[0]}?" if near else "lucid config template lists them all",
        )
    return texts


def _built(found: Found) -> Settings:
    """Return the settings with these values. A value of a table stands in its row."""
    settings = Settings(origins=found.origins)
    tables: dict[str, dict[str, Any]] = {
        name: dict(getattr(settings, name)) for name in ("stages", "services", "integrations")
    }
    changed: dict[str, Any] = dict(tables)
    for field, value in found.values.items():
        if "." in field:
            table, row, name = field.split(".")
            tables[table][row] = replace(tables[table][row], **{name: value})
        else:
            changed[field] = value
    cores = os.cpu_count() or 1
    changed["stages"] = {name: _resolved(limits, cores) for name, limits in tables["stages"].items()}
    settings = replace(settings, **changed)
    if settings.debug and "log_level" not in found.origins:
        settings = replace(settings, log_level="DEBUG")
        found.origins["log_level"] = found.origins["debug"]
    return settings


def _resolved(limits: StageLimits, cores: int) -> StageLimits:
    return limits if limits.workers else replace(limits, workers=cores)
