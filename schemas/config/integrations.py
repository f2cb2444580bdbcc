"""The settings of other services that this system works with.

Base class of `schemas.config.settings.Settings`.

1. An unset URL means: that integration is off.
2. A variable that nothing reads yet says so in its effect; `lucid up` and `lucid serve` warn about it.
"""

from dataclasses import dataclass

from schemas.config.values import API_KEY, HTTP_URL, duration, url, whole
from schemas.config.variable import WITHOUT_EFFECT, setting

OTHERS = {
    "BLOCKCHAIN_ENGINE": "anchors of Merkle roots",
    "NODE_MANAGEMENT": "announcements to the node manager",
    "API_GATEWAY": "announcements to the API gateway",
    "AUTH_SERVICE": "requests to the auth service",
}
"""By name of the service: the work that it takes part in."""
NOT_BUILT = f"{WITHOUT_EFFECT}: the clients of other services are not built yet"


@dataclass(frozen=True, slots=True)
class Integration:
    """Address and key of one other service."""

    url: str = setting(
        "", "URL", HTTP_URL, f"{WITHOUT_EFFECT}: {{}} are not built yet; unset: off", in_repr=False
    )
    api_key: str = setting(
        "",
        "API_KEY",
        API_KEY,
        f"{WITHOUT_EFFECT}: {{}} are not built yet; bearer token",
        secret=True,
        in_repr=False,
    )


DEFAULT_INTEGRATIONS = {name: Integration() for name in OTHERS}


@dataclass(frozen=True)
class OtherServices:
    """Limits of requests to other services, and servers that this design does not need."""

    service_timeout_s: float = setting(30, "SERVICE_TIMEOUT_SECONDS", duration(0.1, 600), NOT_BUILT)
    service_retries: int = setting(3, "SERVICE_RETRY_COUNT", whole(0, 100), NOT_BUILT)
    service_retry_delay_s: float = setting(1, "SERVICE_RETRY_DELAY_SECONDS", duration(0, 600), NOT_BUILT)
    redis_url: str = setting(
        "",
        "REDIS_URL",
        url("redis", "rediss", "unix"),
        f"{WITHOUT_EFFECT}: nothing here needs Redis",
        in_repr=False,
    )
    elasticsearch_url: str = setting(
        "",
        "ELASTICSEARCH_URL",
        url("http", "https"),
        f"{WITHOUT_EFFECT}: nothing here needs Elasticsearch",
        in_repr=False,
    )
