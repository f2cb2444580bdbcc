"""Callers and entries of the audit chain, for tests."""

from dataclasses import dataclass

from schemas.events.audit import Act


@dataclass(frozen=True)
class Person:
    """A caller."""

    subject: str
    roles: frozenset[str] = frozenset({"ADMIN"})
    address: str = "192.0.2.7"


def act(number: int, phase: str = "asked", **more: str) -> Act:
    """An entry that is not in a chain yet."""
    fields = {"id": number.to_bytes(16), "phase": phase, "who": "alice", "action": "stop", **more}
    return Act.model_validate(fields)
