"""Writes the filter, the order and the sums of a query for MongoDB."""

import re
from collections.abc import Mapping
from typing import Any

from schemas.ports.read_models import SORT_FIELDS, SessionFilter, SessionQuery, Sort

NAME = re.compile(r"[A-Za-z0-9_-]*")
"""Texts that can be part of a session's name."""
NONE: Mapping[str, Any] = {"_id": {"$lt": 0}}
"""Fits no document."""
SUMS = ("chunks", "plain_bytes", "sealed_bytes", "duration_us")


def condition(wanted: SessionFilter) -> dict[str, Any]:
    """Return the filter's condition."""
    if NAME.fullmatch(wanted.text) is None:
        return dict(NONE)
    found: dict[str, Any] = {}
    if wanted.states:
        found["state"] = wanted.states[0] if len(wanted.states) == 1 else {"$in": list(wanted.states)}
    if wanted.host:
        found["host"] = wanted.host
    if wanted.opened_by:
        found["opened_by"] = wanted.opened_by
    if wanted.text:
        found["session"] = {"$regex": re.escape(wanted.text)}
    bounds = {"$gte": wanted.from_us, "$lt": wanted.before_us}
    if between := {operator: at_us for operator, at_us in bounds.items() if at_us is not None}:
        found["created_us"] = between
    if wanted.sealed is not None:
        found["sealed"] = wanted.sealed
    if wanted.tokens:
        found["tokens"] = {"$all": list(wanted.tokens)}
    return found


def page_condition(query: SessionQuery) -> dict[str, Any]:
    """Return the condition of a page: the filter, and the place behind which the page begins."""
    found = condition(query.filter)
    if query.after is None:
        return found
    operator, field = "$lt" if query.descending else "$gt", field_of(query.sort)
    value, number = query.after
    if field == "_id":
        behind: dict[str, Any] = {"_id": {operator: number}}
    else:
        behind = {"$or": [{field: {operator: value}}, {field: value, "_id": {operator: number}}]}
    return {"$and": [found, behind]} if found else behind


def order(query: SessionQuery) -> list[tuple[str, int]]:
    """Return the order of a page."""
    direction, field = -1 if query.descending else 1, field_of(query.sort)
    return [(field, direction)] if field == "_id" else [(field, direction), ("_id", direction)]


def field_of(sort: Sort) -> str:
    """Return the name that the compared field has in MongoDB."""
    field = SORT_FIELDS[sort]
    return "_id" if field == "number" else field


def totals(wanted: SessionFilter) -> list[dict[str, Any]]:
    """Return the pipeline of the sums by state."""
    sums = {name: {"$sum": f"${name}"} for name in SUMS}
    grouped = {"$group": {"_id": "$state", "sessions": {"$sum": 1}, **sums}}
    found = condition(wanted)
    return [*([{"$match": found}] if found else []), grouped, {"$sort": {"_id": 1}}]
