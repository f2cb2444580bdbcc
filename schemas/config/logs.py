"""How this program logs: structured events over the standard library's loggers, one line each.

    log = logger("lucid.worker")
    log.info("worker_started", group=0, partitions=16)    ->  worker_started group=0 partitions=16

1. An event is a name in the past tense. Its facts are keywords: ids first, units in their names.
2. A fact whose name tells of a secret is masked, in every module.
3. A value never leaves its line: other characters are escaped, a long value is cut.
4. Level, time and destination are those of the standard library: a role configures them once.
5. A value that cannot be shown is named by its type: a log call never raises because of a fact.
6. structlog is imported at the first event: that takes 50 ms, and most commands of `lucid` log nothing.
"""

import logging
import re
from collections.abc import MutableMapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from structlog.stdlib import BoundLogger

LONGEST = 300
"""Characters of one value: messages of hosts and of files have any length."""
SECRET = re.compile(r"(^|_)(key|password|passphrase|secret|token|seed|credentials)s?$", re.IGNORECASE)
MASK = "***"
QUOTED = re.compile(r"[\s\"=]|^$")

Event = MutableMapping[str, Any]


def logger(name: str) -> "BoundLogger":
    """Return the logger of one component."""
    return cast("BoundLogger", _Deferred(name))


def mask_secrets(_logger: object, _method: str, event: Event) -> Event:
    """Replace the value of each fact whose name tells of a secret."""
    return {name: MASK if SECRET.search(name) else value for name, value in event.items()}


def render(_logger: object, _method: str, event: Event) -> str:
    """Return the event's name and its facts in their order, then the stack trace if there is one."""
    facts = {name: value for name, value in event.items() if name not in ("event", "exception")}
    line = " ".join([str(event["event"]), *(f"{name}={_text(value)}" for name, value in facts.items())])
    return f"{line}\n{event['exception']}" if "exception" in event else line


def _text(value: object) -> str:
    try:
        text = f"{value:.3g}" if isinstance(value, float) else str(value)
    except Exception:
        text = f"<{type(value).__name__} has no text>"
    text = text if len(text) <= LONGEST else f"{text[:LONGEST]}…"
    line = "".join(one if one.isprintable() else f"\\u{ord(one):04x}" for one in text)
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
            processors=(stdlib.filter_by_level, mask_secrets, processors.format_exc_info, render),
            wrapper_class=stdlib.BoundLogger,
        )
