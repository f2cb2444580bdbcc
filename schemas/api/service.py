"""The bodies about a whole service: its status, its health, how well its chunks compress."""

from datetime import datetime

from pydantic import BaseModel


class RoleStatus(BaseModel):
    """Where others reach a role, and whether its /health answers there: ok, or an error code."""

    url: str
    health: str


class ServiceStatus(BaseModel):
    """A service since its start. sessions: how many, by state. recordings_here: running on this host.

    services: the five roles, by name.
    """

    service: str
    version: str
    started_at: datetime
    uptime_s: float
    sessions: dict[str, int]
    recordings_here: int
    behind: int = 0
    services: dict[str, RoleStatus] = {}


class CompressionStatistics(BaseModel):
    """Bytes of the sealed sessions of one host. compression_ratio: plain by stored."""

    host: str
    sessions: int
    chunks: int
    bytes: int
    stored_bytes: int
    compression_ratio: float | None


class Dependency(BaseModel):
    """One part that a service depends on. state: `ok`, `slow`, or an error code; age_s: of this state.

    names: the stages that stand still, or the partitions without a worker.
    """

    state: str
    age_s: float
    names: str = ""


class Health(BaseModel):
    """The state of a service, and of each part that it depends on. status: `ok` or `degraded`."""

    status: str
    service: str
    version: str
    timestamp: datetime
    dependencies: dict[str, Dependency] = {}
