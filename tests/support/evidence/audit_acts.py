"""Callers and entries of the audit chain, for tests."""

from schemas.access import Caller, Role
from schemas.events.audit import Act


def person(subject: str, role: Role = Role.ADMIN) -> Caller:
    """A caller."""
    return Caller(subject, frozenset({role}), "192.0.2.7")


def act(number: int, phase: str = "asked", **more: str) -> Act:
    """An entry that is not in a chain yet."""
    fields = {"id": number.to_bytes(16), "phase": phase, "who": "alice", "action": "stop", **more}
    return Act.model_validate(fields)
