"""Audit entries under the names of OCSF and ECS: no name is our own, no required one is missing."""

from collections.abc import Iterator
from typing import Any

import pytest

from handlers.audit.chain import link
from handlers.audit.siem import ecs, ocsf
from schemas.events.audit import Act, AuditEntry, Head, read_entry

OCSF_EVENT = {
    *(
        "activity_id",
        "activity_name",
        "actor",
        "api",
        "category_name",
        "category_uid",
        "class_name",
        "class_uid",
    ),
    *("dst_endpoint", "http_request", "http_response", "message", "metadata", "resources", "severity"),
    *(
        "severity_id",
        "src_endpoint",
        "status",
        "status_code",
        "status_detail",
        "status_id",
        "time",
        "type_name",
    ),
    *("type_uid", "unmapped"),
}
"""Attributes of class API Activity that the published schema has and an event of ours may use."""
OCSF_REQUIRED = {
    *("activity_id", "actor", "api", "category_uid", "class_uid", "metadata", "severity_id", "src_endpoint"),
    *("time", "type_uid"),
}
OCSF_OBJECTS = {
    "actor": {"user"},
    "actor.user": {"uid", "name", "groups", "type", "type_id"},
    "actor.user.groups": {"name", "uid"},
    "api": {"operation", "request", "response", "service", "version"},
    "api.request": {"uid", "data", "flags"},
    "src_endpoint": {"ip", "name", "hostname", "uid"},
    "resources": {"name", "type", "uid", "owner", "group", "labels", "data"},
    "metadata": {"version", "product", "uid", "correlation_uid", "sequence", "log_name", "event_code"},
    "metadata.product": {"name", "vendor_name", "version", "uid"},
}
ECS_FIELDS = {
    *("@timestamp", "message", "ecs.version", "error.code", "http.request.id"),
    *("event.kind", "event.category", "event.type", "event.action", "event.outcome", "event.id"),
    *("event.sequence", "event.dataset", "event.module", "event.reason"),
    *("user.id", "user.name", "user.roles", "related.user", "source.address", "source.ip"),
    *("service.name", "service.type"),
}
"""Fields that the published reference has and a document of ours may use; `lucid.*` is our own."""
ECS_API_TYPES = {
    *(
        "access",
        "admin",
        "allowed",
        "change",
        "creation",
        "deletion",
        "denied",
        "end",
        "info",
        "start",
        "user",
    ),
}


def entry(**more: Any) -> AuditEntry:
    fields = {"id": bytes(16), "phase": "asked", "who": "alice", "action": "stop"}
    return read_entry(link([Act.model_validate(fields | more)], Head(), 1772615544000123)[0][0])


ENTRIES = [
    entry(),
    entry(
        action="watch", session="demo-01", uid="ab" * 16, reason="ticket 7", request="r1", roles=("AUDITOR",)
    ),
    entry(phase="outcome", action="destroy", session="demo-01", outcome="ok", address="192.0.2.7"),
    entry(phase="outcome", action="export", outcome="refused", code="access.role", detail="more"),
    entry(phase="outcome", action="create", outcome="failed", code="nats.timeout"),
]


def paths(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Each object of an event with the names of its members."""
    for one in value if isinstance(value, list) else [value]:
        if isinstance(one, dict):
            for name, member in one.items():
                yield path, name
                yield from paths(member, f"{path}.{name}".lstrip("."))


@pytest.mark.parametrize("one", ENTRIES, ids=lambda one: one.action)
def test_an_event_has_the_published_names_of_ocsf(one: AuditEntry) -> None:
    """Breaks: a SIEM drops every line, or files it under a name that nobody searches."""
    event = ocsf(one)
    assert OCSF_REQUIRED <= set(event) <= OCSF_EVENT
    assert event["type_uid"] == event["class_uid"] * 100 + event["activity_id"]
    assert event["time"] == 1772615544000
    for path, name in paths({name: member for name, member in event.items() if name != "unmapped"}):
        assert not path or name in OCSF_OBJECTS[path], f"{path}.{name}"
    assert event["status_id"] == {"ok": 1, "": 0}.get(one.outcome, 2)


@pytest.mark.parametrize("one", ENTRIES, ids=lambda one: one.action)
def test_a_document_has_the_published_names_of_ecs(one: AuditEntry) -> None:
    """Breaks: a field of ours collides with one of Elastic's, or is none of them."""
    document = ecs(one)
    leaves = {f"{path}.{name}".lstrip(".") for path, name in paths(document)}
    objects = {path for path, _ in paths(document)}
    named = {leaf for leaf in leaves - objects if not leaf.startswith("lucid.")}
    assert named <= ECS_FIELDS
    assert set(document["event"]["type"]) <= ECS_API_TYPES
    assert document["event"]["outcome"] in ("success", "failure", "unknown")
    assert document["@timestamp"] == "2026-03-04T09:12:24.000123Z"


def test_a_translation_keeps_every_member_of_an_entry() -> None:
    """Breaks: the SIEM cannot answer why a recording was watched."""
    one = entry(
        phase="outcome", action="watch", session="demo-01", uid="ab" * 16, reason="ticket 7", request="r1",
        roles=("AUDITOR",), address="192.0.2.7", outcome="refused", code="access.needed", detail="more",
    )  # fmt: skip
    for translated in (str(ocsf(one)), str(ecs(one))):
        for text in ("demo-01", "ab" * 16, "ticket 7", "r1", "AUDITOR", "192.0.2.7", "access.needed", "more"):
            assert text in translated


def test_a_time_beyond_the_calendar_is_still_translated() -> None:
    """Breaks: one entry of a broken clock ends the export of all others."""
    lines, _ = link([Act(id=bytes(16), phase="asked", who="a", action="stop")], Head(), 2**53 - 1)
    far = read_entry(lines[0])
    assert ecs(far)["@timestamp"].endswith("Z")
    assert ocsf(far)["time"] > 0
