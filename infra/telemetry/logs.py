"""Writes the log of a service: JSON objects for programs, or lines for people.

    {"time": "2026-03-04T09:12:44.123Z", "level": "INFO", "component": "lucid.worker", "process": "worker",
     "event": "worker_started", "group": 0, "partitions": 16}

1. One object a line. `time` is UTC; `session` and `trace_id` are members if the event belongs to one.
2. Libraries log through the same handler, from WARNING on: their debug lines may hold bodies of requests.
3. A member of ours is never replaced: a fact of its name gets a `_` behind it.
"""

import json
import logging
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from schemas.config.logs import Told, masked, shown
from schemas.config.settings import Settings
from schemas.ports.metrics import trace_id_of
from schemas.ports.telemetry import CURRENT

OURS: Final = ("lucid", "infra", "streams")
"""Roots of our own loggers."""
TALKING: Final = ("uvicorn",)
"""Libraries that may say what they do, at INFO."""
MEMBERS: Final = frozenset({"time", "level", "component", "process"})
LINE: Final = "%(asctime)s %(levelname)s %(message)s"
TRACE_BYTES: Final = 16_000
"""Of a stack trace, from its end."""


def configure_logs(settings: Settings, process: str, file: Path | None = None) -> None:
    """Log to stderr, or to a file, as the settings say. process: the name of this process."""
    handler = logging.StreamHandler(sys.stderr) if file is None else logging.FileHandler(file)
    as_lines = settings.log_format == "console" or (
        settings.log_format == "auto" and file is None and sys.stderr.isatty()
    )
    handler.setFormatter(Lines(LINE) if as_lines else JsonObjects(process))
    root = logging.getLogger()
    root.handlers = [handler]
    level = logging.getLevelNamesMapping()[settings.log_level]
    root.setLevel(max(level, logging.WARNING))
    for name in OURS:
        logging.getLogger(name).setLevel(level)
    for name in TALKING:
        logging.getLogger(name).setLevel(max(level, logging.INFO))


class Lines(logging.Formatter):
    """Time, level and event on one line; a stack trace below it. Messages of libraries are masked, too."""

    def format(self, record: logging.LogRecord) -> str:
        return masked(super().format(record))


class JsonObjects(logging.Formatter):
    """One JSON object a line."""

    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        told: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC)
            .isoformat(timespec="milliseconds")
            .replace("+00:00", "Z"),
            "level": record.levelname,
            "component": record.name,
            "process": self._process,
        }
        if isinstance(record.msg, Told):
            facts = dict(record.msg.event)
        else:
            facts = {"event": record.getMessage()}
            if record.exc_info:
                facts["exception"] = self.formatException(record.exc_info)
        told["event"], trace = shown(facts.pop("event")), facts.pop("exception", None)
        for name, fact in facts.items():
            told[f"{name}_" if name in MEMBERS else name] = _value(fact)
        trace_id = trace_id_of({"traceparent": CURRENT.get()})
        if trace_id:
            told.setdefault("trace_id", trace_id)
        if trace is not None:
            told["exception"] = masked(str(trace))[-TRACE_BYTES:]
        return json.dumps(told, ensure_ascii=False)


def _value(fact: object) -> object:
    """A number or truth value as it is, everything else as text."""
    if fact is None or isinstance(fact, bool | int):
        return fact
    if isinstance(fact, float):
        return fact if fact == fact and abs(fact) != float("inf") else str(fact)
    return shown(fact)
