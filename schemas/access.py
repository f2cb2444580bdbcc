"""Names the roles, the permissions, and the caller that a verified token makes.

1. A Caller is made from a verified token, never from the body of a request.
2. `label` is the caller's name in the log of a session, which is kept for ever: a code, never an address.
   No person can choose the label of another, or one that the platform uses itself.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import rfc8785

from schemas.errors import Misuse
from schemas.format.digest import h
from schemas.subjects import UPLOAD_HOST

TOKEN_MOST_BYTES = 8192
"""Longer ones are refused unread. NATS and HTTP carry headers of this size."""
SUBJECT_MOST = 200
"""Characters of a token's subject: an entry of the audit chain holds all of them."""
_LABEL = re.compile(r"[A-Za-z0-9_.-]{1,100}")
_DIGEST = "subject-"
"""Begins the label of a subject that is no label itself."""
COMMAND_PREFIX = b"lucid v1 command\0"
_PLATFORM = frozenset(("conductor", UPLOAD_HOST))
"""Labels of the platform itself."""


class Role(StrEnum):
    """The roles of callers. HOST belongs to recording hosts: no claim of a token gives it."""

    USER = "USER"
    NODE_OPERATOR = "NODE_OPERATOR"
    AUDITOR = "AUDITOR"
    ADMIN = "ADMIN"
    SUPER_ADMIN = "SUPER_ADMIN"
    HOST = "HOST"


GIVEN_ROLES = tuple(role for role in Role if role is not Role.HOST)
"""The roles that a claim can give."""


class Permission(StrEnum):
    """The kinds of requests. Each command and each route needs one of them."""

    PING = "ping"
    SEE = "see"
    LIST = "list"
    SEE_DETAILS = "see_details"
    OPEN = "open"
    CREATE = "create"
    RECORD = "record"
    UPLOAD = "upload"
    DISCARD = "discard"
    ROOM = "room"
    RUN_PIPELINE = "run_pipeline"
    PROCESS = "process"
    SEE_SYSTEM = "see_system"
    READ_SEALED = "read_sealed"
    WATCH = "watch"
    VERIFY = "verify"
    EXPORT = "export"
    READ_AUDIT = "read_audit"
    ACCEPT_LOSS = "accept_loss"
    HOLD = "hold"
    DESTROY = "destroy"
    APPROVE = "approve"
    MANAGE = "manage"
    MANAGE_KEYS = "manage_keys"
    SET_POLICY = "set_policy"


def request_digest(name: str, body: Mapping[str, Any]) -> bytes:
    """Return the digest of one command, for the claim `req` of a host's token.

    H("lucid v1 command\\0" ‖ RFC 8785 of [name, members without `token`]). body: of JSON values.
    Raises Misuse (command.form): the body has no canonical form.
    """
    members = {member: value for member, value in body.items() if member != "token"}
    try:
        return h(COMMAND_PREFIX + rfc8785.dumps([name, members]))
    except (rfc8785.CanonicalizationError, UnicodeEncodeError, RecursionError):
        raise Misuse(f"{name}: the request has no canonical form (RFC 8785)", code="command.form") from None


EFFECTS: dict[Permission, str] = {
    Permission.PING: "ask whether commands are answered",
    Permission.SEE: "see sessions: state, sizes, progress, history",
    Permission.LIST: "list and search sessions",
    Permission.SEE_DETAILS: "see the descriptive fields of sessions",
    Permission.OPEN: "open a session for an upload, and change its descriptive fields",
    Permission.CREATE: "create the session of a recording host; the host's key signs the request",
    Permission.RECORD: "start, pause, resume, stop and abort a recording",
    Permission.UPLOAD: "add data to a session over HTTP",
    Permission.DISCARD: "destroy a session into which nothing was recorded",
    Permission.ROOM: "ask how much data a host may send",
    Permission.RUN_PIPELINE: "pause and resume pipelines, recover sessions, make chunks again",
    Permission.PROCESS: "process chunks that belong to no session, store sealed chunks",
    Permission.SEE_SYSTEM: "see hosts, signers, settings and figures of the whole system",
    Permission.READ_SEALED: "read sealed chunks, proofs and signed manifests",
    Permission.WATCH: "watch and download recordings",
    Permission.VERIFY: "verify recordings",
    Permission.EXPORT: "export recordings and evidence copies",
    Permission.READ_AUDIT: "read and export the audit chain",
    Permission.ACCEPT_LOSS: "give up chunks that cannot be made",
    Permission.HOLD: "place and lift a legal hold",
    Permission.DESTROY: "destroy a session for good",
    Permission.APPROVE: "approve or refuse that another person watches or exports",
    Permission.MANAGE: "rebuild read models, set limits",
    Permission.MANAGE_KEYS: "rotate the master key, rotate and revoke signers, export with keys",
    Permission.SET_POLICY: "set the policy: retention, reasons, four eyes",
}


@dataclass(frozen=True, slots=True)
class Caller:
    """The subject of a verified token. host: the recording host, if one asks. address: of the client.

    until_s: when the token no longer counts, in seconds since 1970; it is no part of the identity.
    """

    subject: str
    roles: frozenset[Role]
    address: str = ""
    host: str = ""
    until_s: float = field(default=math.inf, compare=False)

    @property
    def label(self) -> str:
        """The caller in a session's log: the host, the subject if it is a label, else a digest of it.

        A subject that looks like such a digest, or like a label of the platform, is made a digest, too.
        """
        if self.host:
            return self.host
        plain = self.subject.lower()
        if _LABEL.fullmatch(self.subject) and not plain.startswith(_DIGEST) and plain not in _PLATFORM:
            return self.subject
        return f"{_DIGEST}{h(self.subject.encode()).hex()[:32]}"
