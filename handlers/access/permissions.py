"""Decides whether a caller may do a thing: one table from permission and role to reach.

1. A role gives only the cells of the table; a caller with several roles has the greatest reach of them.
2. OWN reaches the sessions that the caller opened, or those of the host that asks.
3. To a caller with reach OWN, a session of somebody else looks like no session at all.
4. Pure: the caller's token was verified before.
"""

from enum import IntEnum

from handlers.lifecycle.session import Session
from schemas.access import Caller, Permission, Role
from schemas.errors import Denied, session_absent


class Reach(IntEnum):
    """How far a permission reaches."""

    NONE = 0
    OWN = 1
    ALL = 2


_O, _A = Reach.OWN, Reach.ALL
_U, _N, _AU, _AD, _S, _H = (
    *(Role.USER, Role.NODE_OPERATOR, Role.AUDITOR),
    *(Role.ADMIN, Role.SUPER_ADMIN, Role.HOST),
)
_ADMINS = {_AD: _A, _S: _A}

TABLE: dict[Permission, dict[Role, Reach]] = {
    Permission.PING: {_U: _A, _N: _A, _AU: _A, **_ADMINS, _H: _A},
    Permission.SEE: {_U: _O, _N: _A, _AU: _A, **_ADMINS, _H: _O},
    Permission.LIST: {_U: _O, _N: _A, _AU: _A, **_ADMINS},
    Permission.SEE_DETAILS: {_U: _O, _N: _A, _AU: _A, **_ADMINS},
    Permission.OPEN: {_U: _O, _N: _A, **_ADMINS},
    Permission.CREATE: {_N: _A, **_ADMINS, _H: _O},
    Permission.RECORD: {_U: _O, _N: _A, **_ADMINS, _H: _O},
    Permission.UPLOAD: {_U: _O, _N: _A, **_ADMINS},
    Permission.DISCARD: {_U: _O, **_ADMINS, _H: _O},
    Permission.ROOM: {_N: _A, **_ADMINS, _H: _A},
    Permission.RUN_PIPELINE: {_U: _O, _N: _A, **_ADMINS},
    Permission.PROCESS: {_N: _A, **_ADMINS},
    Permission.SEE_SYSTEM: {_N: _A, _AU: _A, **_ADMINS},
    Permission.READ_SEALED: {_U: _O, _N: _A, _AU: _A, **_ADMINS},
    Permission.WATCH: {_U: _O, _AU: _A, **_ADMINS},
    Permission.VERIFY: {_U: _O, _AU: _A, **_ADMINS},
    Permission.EXPORT: {_U: _O, _AU: _A, **_ADMINS},
    Permission.READ_AUDIT: {_AU: _A, **_ADMINS},
    Permission.ACCEPT_LOSS: _ADMINS,
    Permission.HOLD: _ADMINS,
    Permission.DESTROY: _ADMINS,
    Permission.APPROVE: _ADMINS,
    Permission.MANAGE: _ADMINS,
    Permission.MANAGE_KEYS: {_S: _A},
    Permission.SET_POLICY: {_S: _A},
}
"""Only the cells that give something. docs/security.md shows all of them."""


def reach(caller: Caller, permission: Permission) -> Reach:
    """Return how far the permission reaches for this caller."""
    given = TABLE[permission]
    return max((given.get(role, Reach.NONE) for role in caller.roles), default=Reach.NONE)


def permit(caller: Caller, permission: Permission) -> Reach:
    """Return OWN or ALL. Raises Denied (access.role)."""
    found = reach(caller, permission)
    if found is Reach.NONE:
        has = ", ".join(sorted(caller.roles)) or "none"
        needs = ", ".join(role for role in TABLE[permission] if role is not Role.HOST)
        raise Denied(
            f"this needs the permission {permission}; the caller's roles do not give it: {has}",
            code="access.role",
            hint=f"ask with a token of one of the roles: {needs}",
        )
    return found


def permit_session(caller: Caller, permission: Permission, session: Session) -> None:
    """Return if the caller may do this to the session, which need not exist.

    Raises Denied (access.role), NotFound (session.absent): it belongs to somebody else, or does not exist.
    """
    if permit(caller, permission) is Reach.OWN and not owns(caller, session):
        raise session_absent(session.id)


def owns(caller: Caller, session: Session) -> bool:
    """Whether the caller opened the session, or is its host. False: there is no such session."""
    created = session.created
    if created is None:
        return False
    if caller.host:
        return created.host == caller.host
    return session.owner != "" and session.owner == caller.label
