"""How this program logs: structured events over the standard library's loggers, one line each.

    log = logger("lucid.worker")
    log.info("worker_started", group=0, partitions=16)    ->  worker_started group=0 partitions=16

1. An event is a name in the past tense. Its facts are keywords: ids first, units in their names.
2. A fact whose name tells of a secret is masked, in every module.
3. A value never leaves its line: other characters are escaped, a long value is cut.
4. Level, time and destination are those of the standard library: a role configures them once.
5. A value that cannot be shown is named by its type: a log call never raises because of a fact.
6. structlog is imported at the first event: that takes 50 ms, and most commands of `lucid` log nothing.
7. A logger hands on the event itself. infra/telemetry/logs.py writes it as a line, or as one JSON object.
8. Facts of the task around an event (`bind`) are added to it: session, trace_id.
9. Text that looks like a credential is masked wherever it stands: passwords in URLs, tokens.
"""

import logging
import re
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from structlog.stdlib import BoundLogger

LONGEST = 300
"""Characters of one value: messages of hosts and of files have any length."""
SECRET = re.compile(r"(^|_)(key|password|passphrase|secret|token|seed|credentials)s?$", re.IGNORECASE)
MASK = "***"
CREDENTIAL = re.compile(
    r"(?<=://)[^\s\"']{1,300}(?=@)|(?<![\w-])eyJ[\w-]{8,}+(?:\.[\w-]*+)*|(?<=[Bb]earer )[^\s\"',]{8,}",
    re.ASCII,
)
"""User and password of a URL, also with a bare @ or /; a JWT, also a cut one; a bearer token."""
QUOTED = re.compile(r"[\s\"=]|^$")

Event = MutableMapping[str, Any]

_BOUND: ContextVar[Mapping[str, str]] = ContextVar("facts of this task", default=MappingProxyType({}))


def logger(name: str) -> "BoundLogger":
    """Return the logger of one component."""
    return cast("BoundLogger", _Deferred(name))


def mask_secrets(_logger: object, _method: str, event: Event) -> Event:
    """Replace the value of each fact whose name tells of a secret."""
    return {name: MASK if SECRET.search(name) else value for name, value in event.items()}


def bind(**facts: str) -> None:
    """Add facts to every later event of this task, and of tasks that it starts. Empty ones are left out."""
    _BOUND.set({**_BOUND.get(), **{name: fact for name, fact in facts.items() if fact}})


@contextmanager
def bound(**facts: str) -> Iterator[None]:
    """As `bind`, for the block alone."""
    before = _BOUND.get()
    bind(**facts)
    try:
        yield
    finally:
        _BOUND.set(before)


class Told:
    """An event on its way to a handler. As text it is one line."""

    def __init__(self, event: Event) -> None:
        self.event = event

    def __str__(self) -> str:
        """The event's name and its facts in their order, then the stack trace if there is one."""
        facts = [(name, value) for name, value in self.event.items() if name not in ("event", "exception")]
        line = " ".join([str(self.event["event"]), *(f"{name}={_quoted(value)}" for name, value in facts)])
        return f"{line}\n{masked(self.event['exception'])}" if "exception" in self.event else line


def hand_on(_logger: object, _method: str, event: Event) -> tuple[tuple[Told], dict[str, Any]]:
    """Return the arguments of the standard library's logger: the event, with the facts of its task."""
    return (Told({**event, **{name: fact for name, fact in _BOUND.get().items() if name not in event}}),), {}


def masked(text: str) -> str:
    """Return the text without credentials."""
    return CREDENTIAL.sub(MASK, text)


def shown(value: object) -> str:
    """Return a value as text of one line: without credentials, cut, and with other characters escaped."""
    try:
        text = f"{value:.3g}" if isinstance(value, float) else str(value)
    except Exception:
        text = f"<{type(value).__name__} has no text>"
    text = masked(text[: 4 * LONGEST])
    text = text if len(text) <= LONGEST else f"{text[:LONGEST]}…"
    return "".join(one if one.isprintable() else f"\\u{ord(one):04x}" for one in text)


def _quoted(value: object) -> str:
    line = shown(value)
    return f'"{line}"' if QUOTED.search(line) else line


class _Deferred:
    """A logger that is made when somebody uses it."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, method: str) -> Any:
        return getattr(self._bound, method)

    @cached_property
    def _bound(self) -> Any:
        from structlog import processors, stdlib, wrap_logger

        return wrap_logger(
            logging.getLogger(self._name),
            processors=(stdlib.filter_by_level, mask_secrets, processors.format_exc_info, hand_on),
            wrapper_class=stdlib.BoundLogger,
        )
