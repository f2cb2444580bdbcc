"""Says which permission each command of `lucid.cmd.*` needs, and permits one request.

1. The table is total: a command without a row does not exist (a test compares it with the service).
2. A row with `session` is about the session that the request names: reach OWN means the caller's own.
3. Members that the identity decides replace those of the request: the caller, and the filter of `list`.
4. Pure.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from handlers.access.permissions import Reach, permit, permit_session, reach
from handlers.lifecycle.session import Session
from schemas.access import Caller, Permission, Role
from schemas.errors import Denied
from schemas.subjects import UPLOAD_HOST

Body = dict[str, Any]


class Row(NamedTuple):
    """The permission of one command. session: the request names an existing session."""

    permission: Permission
    session: bool = True


COMMANDS: dict[str, Row] = {
    "create": Row(Permission.CREATE, session=False),
    "open": Row(Permission.OPEN, session=False),
    "update": Row(Permission.OPEN),
    "start": Row(Permission.RECORD),
    "stop": Row(Permission.RECORD),
    "abort": Row(Permission.RECORD),
    "pause": Row(Permission.RECORD),
    "resume": Row(Permission.RECORD),
    "pause_pipeline": Row(Permission.RUN_PIPELINE),
    "resume_pipeline": Row(Permission.RUN_PIPELINE),
    "error": Row(Permission.RUN_PIPELINE),
    "recover": Row(Permission.RUN_PIPELINE),
    "redrive": Row(Permission.RUN_PIPELINE),
    "hold": Row(Permission.HOLD),
    "destroy": Row(Permission.DISCARD),
    "show": Row(Permission.SEE),
    "where": Row(Permission.SEE),
    "details": Row(Permission.SEE_DETAILS),
    "running": Row(Permission.LIST, session=False),
    "scrub": Row(Permission.SEE_SYSTEM, session=False),
    "scrub_now": Row(Permission.RUN_PIPELINE, session=False),
    "scrub_acknowledge": Row(Permission.RUN_PIPELINE, session=False),
    "ping": Row(Permission.PING, session=False),
    "list": Row(Permission.LIST, session=False),
    "totals": Row(Permission.LIST, session=False),
    "room": Row(Permission.ROOM, session=False),
    "rotate": Row(Permission.MANAGE_KEYS, session=False),
    "signers": Row(Permission.SEE_SYSTEM, session=False),
    "rotate_signer": Row(Permission.MANAGE_KEYS, session=False),
    "revoke_signer": Row(Permission.MANAGE_KEYS, session=False),
    "audit": Row(Permission.READ_AUDIT, session=False),
    "audit_head": Row(Permission.READ_AUDIT, session=False),
    "access_request": Row(Permission.WATCH),
    "access_approve": Row(Permission.APPROVE, session=False),
    "access_refuse": Row(Permission.LIST, session=False),
    "access_list": Row(Permission.LIST, session=False),
}
UNRECORDED = "unrecorded_only"
"""Member of `destroy`: nothing may have been recorded into the session. The command checks it."""


def needs_session(caller: Caller, name: str) -> bool:
    """Whether the session must be looked at before the request is permitted. Raises Denied (access.role)."""
    row = COMMANDS[name]
    return permit(caller, row.permission) is Reach.OWN and row.session


def permitted(caller: Caller, name: str, body: Mapping[str, Any], session: Session | None) -> Body:
    """Return the request as it may be carried out, with the members that the identity decides.

    session: of the request, if `needs_session`. Raises Denied (access.role, access.host, access.approver),
    NotFound (session.absent).
    """
    row = COMMANDS[name]
    found = permit(caller, row.permission)
    if session is not None:
        permit_session(caller, row.permission, session)
    asked = {key: value for key, value in body.items() if key != UNRECORDED}
    asked["who"] = caller.label
    if name == "create":
        _check_host(caller, str(asked.get("host", "")), found)
    if name in ("list", "totals", "running") and found is Reach.OWN:
        asked["opened_by"] = caller.label
    if name == "destroy" and "approver" in asked:
        raise Denied(
            "nobody proves here that a second person approved the destruction (allowed: no approver)",
            code="access.approver",
            hint="leave approver out; X-Reason or --reason says on whose word the session is destroyed",
        )
    if name == "destroy" and reach(caller, Permission.DESTROY) is not Reach.ALL:
        asked[UNRECORDED] = True
    if name == "audit_head" and asked.get("accept_break"):
        permit(caller, Permission.MANAGE_KEYS)
    if name == "recover" and asked.get("accept_loss"):
        permit(caller, Permission.ACCEPT_LOSS)
    return asked


def _check_host(caller: Caller, host: str, found: Reach) -> None:
    """Raises Denied (access.host): a host creates under its own name, only the platform under its own."""
    if (found is Reach.OWN and host != caller.host) or (
        host == UPLOAD_HOST and Role.HOST not in caller.roles
    ):
        raise Denied(
            f"{caller.label} may not create sessions of host {host[:80]}",
            code="access.host",
            hint="a host creates sessions under its own name",
        )
