"""Every setting of a process: its variable, its kind, its default, its effect; declared once, on its field.

1. `VARIABLES` is read off the fields. `lucid config`, its templates and docs/settings.md are made from it.
2. The fields stand in groups (`GROUPS`), one dataclass each; `Settings` has them all.
3. Nothing here reads the environment (infra.config.load does). Text comes in; values or Misuse
   (config.<field>) come out.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple

from schemas.config.access import AccessSettings
from schemas.config.integrations import DEFAULT_INTEGRATIONS, OTHERS, Integration, OtherServices
from schemas.config.places import Folders, Servers
from schemas.config.processor import Processor
from schemas.config.services import DEFAULT_SERVICES, OF_ALL_ROLES, ROLES, Service, Services
from schemas.config.sessions import CODECS, MasterKey, NewSessions, SessionLimits
from schemas.config.stage_limits import DEFAULT_LIMITS, ENDLESS, STAGES, StageLimits
from schemas.config.values import YES_OR_NO, choice
from schemas.config.variable import Variable, setting
from schemas.errors import Misuse
from schemas.events.session import SessionSettings
from schemas.format.chunk_header import DEFAULT_LEVELS, LEVELS, SUITES


@dataclass(frozen=True)
class Process:
    """The kind of the process, and its log."""

    environment: str = setting(
        "development", "LUCID_ENV", choice("development", "production"), "production forbids easy defaults"
    )
    log_level: str = setting(
        "INFO", "LOG_LEVEL", choice("DEBUG", "INFO", "WARNING", "ERROR"), "the least that is logged"
    )
    log_format: str = setting(
        "auto",
        "LOG_FORMAT",
        choice("auto", "json", "console"),
        "how services log: JSON objects, or lines for people; auto: lines on a terminal, else JSON",
    )
    debug: bool = setting(False, "DEBUG", YES_OR_NO, "the same as LOG_LEVEL=DEBUG")


@dataclass(frozen=True)
class Settings(
    Process,
    Folders,
    Servers,
    NewSessions,
    MasterKey,
    SessionLimits,
    Services,
    Processor,
    AccessSettings,
    OtherServices,
):
    """The settings of one process, checked."""

    stages: dict[str, StageLimits] = field(default_factory=lambda: dict(DEFAULT_LIMITS))
    services: dict[str, Service] = field(default_factory=lambda: dict(DEFAULT_SERVICES))
    integrations: dict[str, Integration] = field(default_factory=lambda: dict(DEFAULT_INTEGRATIONS))
    origins: dict[str, str] = field(default_factory=dict)
    """By field, for each that was set: "CHUNK_SIZE_MB in the environment"."""

    def value(self, variable: Variable) -> Any:
        """Return the value of the variable's field."""
        if not variable.in_table:
            return getattr(self, variable.field)
        table, row, name = variable.field.split(".")
        return getattr(getattr(self, table)[row], name)

    def session(self) -> SessionSettings:
        """Return the settings that a new session freezes. Raises Misuse (config.level)."""
        codec = CODECS[self.codec]
        allowed = LEVELS[codec]
        level = DEFAULT_LEVELS[codec] if self.level is None else self.level
        if level not in allowed:
            raise Misuse(
                f"{self.origins.get('level', 'COMPRESSION_LEVEL')} is {level}; "
                f"allowed for {self.codec}: {allowed[0]} to {allowed[-1]}",
                code="config.level",
            )
        return SessionSettings(
            suite=SUITES[self.suite].value,
            codec=codec.value,
            level=level,
            chunk_bytes=self.chunk_bytes,
            chunk_max_seconds=self.chunk_max_seconds,
            threshold=self.threshold,
        )

    def url_of(self, role: str, port: int | None = None) -> str:
        """Return the URL under which others reach a role of ROLES. port: where it really listens."""
        service = self.services[role]
        if service.url:
            return service.url
        host = service.host or "127.0.0.1"
        place = f"[{host}]" if ":" in host else host
        return f"{'https' if self.tls_cert else 'http'}://{place}:{service.port if port is None else port}"

    def named_urls(self, port: int | None = None) -> dict[str, str]:
        """Return the URL of each role with a URL or a host of its own, by its name in small letters."""
        named = [role for role in ROLES if self.services[role].url or self.services[role].host]
        return {role.lower(): self.url_of(role, port) for role in named}


class Group(NamedTuple):
    """One heading of the page of settings, with its variables."""

    title: str
    variables: tuple[Variable, ...]


def _declared(owner: type) -> Iterator[Variable]:
    for one in fields(owner):
        if "variable" in one.metadata:
            yield one.metadata["variable"]._replace(field=one.name)


def _of_service(role: str) -> Iterator[Variable]:
    for one in _declared(Service):
        found = one.in_row("services", role, f"SESSION_{role}", role.lower())
        of_all = role == "API" and one.field == "port"
        yield found._replace(effect=f"{found.effect}; {OF_ALL_ROLES}") if of_all else found


def _of_integration(name: str, work: str) -> Iterator[Variable]:
    for one in _declared(Integration):
        yield one.in_row("integrations", name, name, work)


def _of_stage(stage: str) -> Iterator[Variable]:
    for limit in _declared(StageLimits):
        found = limit.in_row("stages", stage, stage, stage.lower())
        endless = stage == "RECORDER" and limit.field in ("timeout_s", "retries")
        yield found._replace(effect=ENDLESS) if endless else found


def _group(title: str, *declared: Iterator[Variable]) -> Group:
    return Group(title, tuple(variable for part in declared for variable in part))


GROUPS = (
    _group("The process", _declared(Process)),
    _group("Folders", _declared(Folders)),
    _group("NATS, MongoDB and workers", _declared(Servers)),
    _group("New sessions", _declared(NewSessions)),
    _group("Sessions and hosts", _declared(SessionLimits)),
    _group("Master key", _declared(MasterKey)),
    _group("Services over HTTP", _declared(Services), *map(_of_service, ROLES)),
    _group("Access", _declared(AccessSettings)),
    _group("Processor", _declared(Processor)),
    _group("Other services", *(_of_integration(*one) for one in OTHERS.items()), _declared(OtherServices)),
    _group("Limits of the stages", *map(_of_stage, STAGES)),
)
VARIABLES = tuple(variable for group in GROUPS for variable in group.variables)
