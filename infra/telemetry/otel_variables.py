"""Lists the variables of OpenTelemetry (OTEL_*) that traces obey, and refuses wrong values.

1. A process that traces checks them at its start, as its settings: one line for each, exit status 2. Without
   traces a wrong value changes nothing, and nothing is refused.
2. A value that another program understands and this one does not is wrong here: no trace gets lost unseen.
3. docs/observability.md has the same table. Nothing here imports the SDK.
Source: the specification of OpenTelemetry, "Environment Variable Specification".
"""

import os
from collections.abc import Iterator, Mapping

from infra.telemetry.otel_environment import is_on
from schemas.config.values import FILE, Kind, choice, pattern, url, whole
from schemas.config.variable import WITHOUT_EFFECT, Variable
from schemas.errors import Misuse

QUEUE, BATCH = "OTEL_BSP_MAX_QUEUE_SIZE", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE"
DEFAULTS = {QUEUE: 2048, BATCH: 512}
COUNT_MOST, MS_MOST, CHARS_MOST = 10_000, 86_400_000, 1_000_000
SAMPLERS = tuple(
    f"{based}{name}" for based in ("parentbased_", "") for name in ("always_on", "always_off", "traceidratio")
)
RATIO_SAMPLERS = tuple(name for name in SAMPLERS if name.endswith("traceidratio"))


def _propagators(given: str) -> str:
    """`baggage` is in the list that most programs have by default: it is accepted, and none is sent."""
    names = [name.strip().lower() for name in given.split(",")]
    if names != ["none"] and not {"tracecontext"} <= {*names} <= {"tracecontext", "baggage"}:
        raise ValueError
    return given


def _positive_seconds(given: str) -> float:
    if not 0 < float(given) <= MS_MOST / 1000:
        raise ValueError
    return float(given)


def _ratio(given: str) -> float:
    if not 0 <= float(given) <= 1:
        raise ValueError
    return float(given)


def _readable(given: str) -> str:
    if not os.access(given, os.R_OK):
        raise ValueError
    return given


PAIRS = r"\s*([^=,\s][^=,]*=[^,]*)?(,\s*([^=,\s][^=,]*=[^,]*)?)*"
RATIO = Kind(_ratio, "0 to 1")
COUNT = whole(0, COUNT_MOST)
LENGTH = whole(0, CHARS_MOST)
MILLISECONDS = whole(1, MS_MOST)
SECONDS = Kind(_positive_seconds, "seconds, more than 0")
READABLE = Kind(_readable, f"{FILE.allowed} that can be read")
LISTED = pattern(PAIRS, "name=value, several with commas")


def _row(name: str, kind: Kind, effect: str, *synonyms: str, secret: bool = False) -> Variable:
    return Variable(name, kind, effect, synonyms, secret, field="otel")


def _exporter(name: str, kind: Kind, effect: str, *, secret: bool = False) -> Variable:
    """A variable that has a name for traces alone, which wins."""
    own = f"OTEL_EXPORTER_OTLP_TRACES_{name}"
    return _row(f"OTEL_EXPORTER_OTLP_{name}", kind, effect, own, secret=secret)


OTEL_VARIABLES = (
    _row("OTEL_SDK_DISABLED", choice("true", "false"), "true: nothing is traced"),
    _row("OTEL_TRACES_EXPORTER", choice("otlp", "none"), "none: nothing is traced"),
    _exporter("ENDPOINT", url("http", "https"), "the server that takes spans; without one nothing is traced"),
    _exporter("PROTOCOL", choice("http/protobuf"), "the only one that is spoken"),
    _exporter("HEADERS", LISTED, "headers of each export, such as a token", secret=True),
    _exporter("TIMEOUT", SECONDS, "of one export; in seconds, as the SDK for Python reads it"),
    _exporter("COMPRESSION", choice("none", "gzip", "deflate"), "of exports"),
    _exporter("CERTIFICATE", READABLE, "the certificates that are trusted"),
    _exporter("CLIENT_KEY", READABLE, "our key, for mutual TLS"),
    _exporter("CLIENT_CERTIFICATE", READABLE, "our certificate, for mutual TLS"),
    _row("OTEL_SERVICE_NAME", pattern(r".{1,255}", "a name"), "instead of `lucid-worker` and so on"),
    _row("OTEL_RESOURCE_ATTRIBUTES", LISTED, "stand at every span"),
    _row("OTEL_TRACES_SAMPLER", choice(*SAMPLERS), "decides which traces are kept"),
    _row("OTEL_TRACES_SAMPLER_ARG", RATIO, "the ratio of `traceidratio`"),
    _row(
        "OTEL_PROPAGATORS",
        Kind(_propagators, "tracecontext, with or without baggage; or none"),
        "none: no `traceparent` of other services is read, and none is sent to them",
    ),
    _row("OTEL_BSP_SCHEDULE_DELAY", MILLISECONDS, "how long a span waits for others, ms; 1000 by default"),
    _row(QUEUE, whole(1, COUNT_MOST), "spans that wait at most; older ones are dropped"),
    _row(BATCH, whole(1, COUNT_MOST), "spans in one export"),
    _row("OTEL_BSP_EXPORT_TIMEOUT", MILLISECONDS, f"{WITHOUT_EFFECT}: OTEL_EXPORTER_OTLP_TIMEOUT counts"),
    _row("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", COUNT, "attributes of a span; 128", "OTEL_ATTRIBUTE_COUNT_LIMIT"),
    _row(
        "OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT",
        LENGTH,
        "characters of a text; longer ones are cut",
        "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT",
    ),
    _row("OTEL_SPAN_LINK_COUNT_LIMIT", COUNT, "links of a span; 128"),
    _row(
        "OTEL_SPAN_EVENT_COUNT_LIMIT",
        COUNT,
        f"{WITHOUT_EFFECT}: our spans have no events",
        "OTEL_EVENT_ATTRIBUTE_COUNT_LIMIT",
    ),
    _row("OTEL_LINK_ATTRIBUTE_COUNT_LIMIT", COUNT, f"{WITHOUT_EFFECT}: our links have no attributes"),
)
"""The synonyms are variables of their own: both may be set, and each is checked."""


def wrong_variables(server: str = "", environ: Mapping[str, str] = os.environ) -> Iterator[Misuse]:
    """Yield the refusal of each wrong value; nothing if this process does not trace. server: as `is_on`."""
    if not is_on(server, environ):
        return
    for variable in OTEL_VARIABLES:
        for name in variable.names:
            given = environ.get(name, "").strip()
            try:
                if given and _counts(name, environ):
                    variable.read(given, f"{name} in the environment")
            except Misuse as error:
                yield error
    try:
        queue, batch = (int(environ.get(name, "") or default) for name, default in DEFAULTS.items())
    except ValueError:  # reported already
        return
    if 0 < queue < batch:
        yield Misuse(
            f"OTEL_BSP_MAX_QUEUE_SIZE is {queue}, and OTEL_BSP_MAX_EXPORT_BATCH_SIZE {batch}: "
            "a batch must fit into the queue",
            code="config.otel",
            hint="set both",
        )


def unused_variables(environ: Mapping[str, str] = os.environ) -> list[Variable]:
    """Return the variables that are set, and have no effect."""
    return [one for one in OTEL_VARIABLES if one.without_effect and any(map(environ.get, one.names))]


def _counts(name: str, environ: Mapping[str, str]) -> bool:
    """Other samplers have other arguments."""
    sampler = environ.get("OTEL_TRACES_SAMPLER", "").strip().lower()
    return name != "OTEL_TRACES_SAMPLER_ARG" or sampler in RATIO_SAMPLERS
