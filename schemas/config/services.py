"""The settings of the five services over HTTP: addresses, certificates, signing keys, metrics.

Base class of `schemas.config.settings.Settings`.

1. `SESSION_<ROLE>_PORT`, `_HOST` and `_URL` say where others reach a role; `BIND_ADDRESS` says where its
   server listens.
2. `PORT` belongs to the one role of `lucid serve ROLE`: infra.config.load puts it into that role's row.
"""

from dataclasses import dataclass
from pathlib import Path

from schemas.config.values import (
    FILE,
    HOST_NAME,
    HTTP_URL,
    IP_ADDRESS,
    SIGNING_KEY,
    YES_OR_NO,
    duration,
    pattern,
    whole,
)
from schemas.config.variable import setting

ROLES = ("RECORDER", "PIPELINE", "PROCESSOR", "STORAGE", "API")
PORT_MOST = (1 << 16) - 1
OF_ALL_ROLES = "also of all roles in `lucid up`, which takes a free one if it is taken"


@dataclass(frozen=True, slots=True)
class Service:
    """Where others reach one role. port 0: its server takes a free one."""

    port: int = setting(0, "PORT", whole(0, PORT_MOST), "port of session-{}; 0: a free one")
    host: str = setting(
        "", "HOST", HOST_NAME, "name under which others reach session-{}; unset: this machine, 127.0.0.1"
    )
    url: str = setting(
        "", "URL", HTTP_URL, "URL under which others reach session-{}; unset: made of host and port"
    )


DEFAULT_SERVICES = {
    "RECORDER": Service(8090),
    "PIPELINE": Service(8083),
    "PROCESSOR": Service(8091),
    "STORAGE": Service(8092),
    "API": Service(8113),
}


@dataclass(frozen=True)
class Services:
    """Settings that the five services share."""

    service_name: str = setting(
        "",
        "SERVICE_NAME",
        pattern(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", "1 to 100 of A-Z a-z 0-9 . _ -"),
        "name of this process in health bodies; unset: session- and its role",
    )
    port: int | None = setting(
        None,
        "PORT",
        whole(0, PORT_MOST),
        "port of the one role of `lucid serve ROLE`: the same as its SESSION_<ROLE>_PORT "
        "(`lucid up`: as SESSION_API_PORT)",
    )
    bind_address: str = setting(
        "",
        "BIND_ADDRESS",
        IP_ADDRESS,
        "address on which servers listen; unset: 127.0.0.1, 0.0.0.0 in a container",
    )
    tls_cert: Path | None = setting(
        None, "TLS_CERT_FILE", FILE, "certificate chain (PEM) of the servers; unset: plain HTTP"
    )
    tls_key: Path | None = setting(
        None, "TLS_KEY_FILE", FILE, "private key (PEM, no passphrase) of TLS_CERT_FILE"
    )
    secret_key: str = setting(
        "",
        "SECRET_KEY",
        SIGNING_KEY,
        "signs the cursors of pages; unset: a key that is made in keys/ does; required in production",
        secret=True,
        in_repr=False,
    )
    metrics_enabled: bool = setting(True, "METRICS_ENABLED", YES_OR_NO, "whether /metrics is served")
    metrics_port: int = setting(
        9093,
        "METRICS_PORT",
        whole(0, PORT_MOST),
        "a second port of `lucid serve pipeline`, for /metrics alone; 0, or a port that is taken: none",
    )
    metrics_address: str = setting(
        "", "METRICS_ADDRESS", IP_ADDRESS, "address of METRICS_PORT; unset: as BIND_ADDRESS"
    )
    health_interval_s: float = setting(
        30,
        "HEALTH_CHECK_INTERVAL",
        duration(1, 3600),
        "how long /health remembers the states of dependencies; /ready: at most 1s",
    )
    stage_stalled_s: float = setting(
        60,
        "STAGE_STALLED",
        duration(1, 3600),
        "how long a stage may finish nothing while something waits for it; then /ready is not ready",
    )
