"""Translates audit entries into the field names of two SIEM schemas: OCSF and ECS. Pure.

1. OCSF 1.3: class API Activity (6003). Members of an entry without an attribute of that class stand in
   `unmapped` under their own names.
2. ECS 8.17: category `api`. Members without a field stand below `lucid`, the name of our own fields.
3. A translation is for search. Only the lines of the chain themselves can be verified.

Sources: schema.ocsf.io (classes/api_activity and its objects), elastic.co/docs/reference/ecs.
"""

import json
from datetime import UTC, datetime
from typing import Any, NamedTuple

from schemas.errors import EvidenceFalse
from schemas.events.audit import AuditEntry, read_entry

OCSF_VERSION, ECS_VERSION = "1.3.0", "8.17.0"
CLASS, CATEGORY = 6003, 6
PRODUCT = "Lucid Sessions"


class _Kind(NamedTuple):
    """An action as both schemas sort it."""

    activity: int
    name: str
    ecs_type: str


_CREATE, _READ = _Kind(1, "Create", "creation"), _Kind(2, "Read", "access")
_UPDATE, _DELETE = _Kind(3, "Update", "change"), _Kind(4, "Delete", "deletion")
_KINDS = {
    "create": _CREATE,
    "open": _CREATE,
    "access_request": _CREATE,
    "destroy": _DELETE,
    **dict.fromkeys(
        ("watch", "download", "export", "export_evidence", "export_keys", "manifest", "audit", "audit_head",
         "access_list", "show", "list", "signers", "keys_copy", "progress"),
        _READ,
    ),
}  # fmt: skip
"""Every other action changes something."""
_STATUS = {"ok": (1, "Success", "success"), "": (0, "Unknown", "unknown")}
_FAILURE = (2, "Failure", "failure")


def ocsf(entry: AuditEntry) -> dict[str, Any]:
    """Return the entry as an event of OCSF's class API Activity."""
    kind = _KINDS.get(entry.action, _UPDATE)
    status_id, status, _ = _STATUS.get(entry.outcome, _FAILURE)
    event: dict[str, Any] = {
        "category_uid": CATEGORY,
        "category_name": "Application Activity",
        "class_uid": CLASS,
        "class_name": "API Activity",
        "activity_id": kind.activity,
        "activity_name": kind.name,
        "type_uid": CLASS * 100 + kind.activity,
        "type_name": f"API Activity: {kind.name}",
        "severity_id": 1,
        "severity": "Informational",
        "time": entry.at_us // 1000,
        "status_id": status_id,
        "status": status,
        "message": _message(entry),
        "actor": {
            "user": {"uid": entry.who, "name": entry.who, "groups": [{"name": r} for r in entry.roles]}
        },
        "api": {"operation": entry.action, "request": {"uid": entry.request or entry.id.hex()}},
        "src_endpoint": {"ip": entry.address} if entry.address else {"name": "unknown"},
        "metadata": {
            "version": OCSF_VERSION,
            "product": {"name": PRODUCT, "vendor_name": PRODUCT},
            "uid": f"{entry.id.hex()}-{entry.phase}",
            "correlation_uid": entry.id.hex(),
            "sequence": entry.number,
            "log_name": "AUDIT",
            "event_code": f"{entry.action}.{entry.phase}",
        },
        "unmapped": _own(entry),
    }
    if entry.code:
        event["status_code"] = entry.code
    if entry.detail:
        event["status_detail"] = entry.detail
    if entry.session:
        uid = {"uid": entry.uid} if entry.uid else {}
        event["resources"] = [{"type": "session", "name": entry.session, **uid}]
    return event


def ecs(entry: AuditEntry) -> dict[str, Any]:
    """Return the entry as a document of ECS."""
    kind = _KINDS.get(entry.action, _UPDATE)
    _, _, outcome = _STATUS.get(entry.outcome, _FAILURE)
    event: dict[str, Any] = {
        "kind": "event",
        "category": ["api"],
        "type": [kind.ecs_type, *(["denied"] if entry.outcome == "refused" else [])],
        "action": entry.action,
        "outcome": outcome,
        "id": f"{entry.id.hex()}-{entry.phase}",
        "sequence": entry.number,
        "dataset": "lucid.audit",
        "module": "lucid",
    }
    document: dict[str, Any] = {
        "@timestamp": _time_text(entry.at_us),
        "ecs": {"version": ECS_VERSION},
        "message": _message(entry),
        "event": event,
        "user": {"id": entry.who, "name": entry.who, "roles": list(entry.roles)},
        "related": {"user": [entry.who]},
        "service": {"name": "lucid-sessions", "type": "lucid"},
        "lucid": _own(entry) | {"session": entry.session, "uid": entry.uid, "detail": entry.detail},
    }
    if entry.reason:
        event["reason"] = entry.reason
    if entry.address:
        document["source"] = {"address": entry.address, "ip": entry.address}
    if entry.code:
        document["error"] = {"code": entry.code}
    if entry.request:
        document["http"] = {"request": {"id": entry.request}}
    return document


FORMATS = {"ocsf": ocsf, "ecs": ecs}


def translated(line: bytes, form: str) -> bytes:
    """Return a line of the chain with the field names of FORMATS[form]; one that is no entry says so."""
    try:
        return json.dumps(FORMATS[form](read_entry(line))).encode()
    except EvidenceFalse as error:
        return json.dumps({"message": f"{error.message} [{error.code}]"}).encode()


def _message(entry: AuditEntry) -> str:
    on = f" of {entry.session}" if entry.session else ""
    how = "asked" if entry.phase == "asked" else entry.outcome
    return f"{entry.action}{on} by {entry.who}: {how}"


def _own(entry: AuditEntry) -> dict[str, Any]:
    """Members of an entry that neither schema has a name for."""
    return {
        "phase": entry.phase,
        "outcome": entry.outcome,
        "reason": entry.reason,
        "prev": entry.prev.hex(),
        "time_us": entry.time_us,
        "set_back_us": entry.set_back_us,
    }


def _time_text(at_us: int) -> str:
    """RFC 3339 with microseconds; the edge of the calendar for a time beyond it."""
    try:
        at = datetime.fromtimestamp(at_us // 10**6, UTC)
    except (ValueError, OverflowError, OSError):
        at = datetime.max.replace(tzinfo=UTC) if at_us > 0 else datetime.min.replace(tzinfo=UTC)
    return f"{at:%Y-%m-%dT%H:%M:%S}.{at_us % 10**6:06d}Z"
